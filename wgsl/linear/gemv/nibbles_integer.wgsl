// 8 nibbles of a word against 8 columns of x, by integer arithmetic (see exact_f32.wgsl): works on
// every device.  Columns 0–3 are the first quad, 4–7 the second.

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
