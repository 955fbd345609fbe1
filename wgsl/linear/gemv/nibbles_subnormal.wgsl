// Eight nibbles of a word for eight columns of x, with fewer instructions: two nibbles are read at
// once as half-precision subnormals, n·2^−24 where a nibble lies at bit 0 of a half and n·2^−20
// where it lies at bit 4. Subtracting 8·2^−24 or 8·2^−20 is exact. The even columns (0, 4, 2, 6)
// are the first quad, the odd ones (1, 5, 3, 7) the second; x has the same order, and its odd
// columns are divided by 16.
//
// WGSL allows a device to flush half-precision subnormals to zero. This piece is only for devices
// on which probe/halves.wgsl found that they are kept.
//
// Defines: UNSCALE, arrange_first, arrange_second, unpack_first, unpack_second.

const UNSCALE = 16777216.0;

fn arrange_first(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.x, high.x, low.z, high.z);
}

fn arrange_second(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.y, high.y, low.w, high.w) * 0.0625;
}

fn unpack_first(word: u32) -> vec4<f32> {
    let low = unpack2x16float(word & 0x000F000Fu);
    let high = unpack2x16float((word >> 8u) & 0x000F000Fu);
    return vec4<f32>(low, high) - 4.76837158203125e-7;
}

fn unpack_second(word: u32) -> vec4<f32> {
    let low = unpack2x16float(word & 0x00F000F0u);
    let high = unpack2x16float((word >> 8u) & 0x00F000F0u);
    return vec4<f32>(low, high) - 7.62939453125e-6;
}
