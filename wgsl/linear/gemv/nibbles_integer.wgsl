// Eight nibbles of a word for eight columns of x, by integer arithmetic
// (linear/common/exact_f32.wgsl), which works on every device. Columns 0 to 3 are the first quad, 4
// to 7 the second.
//
// Needs: UNSHIFT, shifted_quad.
// Defines: UNSCALE, arrange_first, arrange_second, unpack_first, unpack_second.

const UNSCALE = 1.0;

fn arrange_first(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return low * UNSHIFT;
}

fn arrange_second(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return high * UNSHIFT;
}

fn unpack_first(word: u32) -> vec4<f32> {
    return shifted_quad(word);
}

fn unpack_second(word: u32) -> vec4<f32> {
    return shifted_quad(word >> 16u);
}
