// Eight nibbles of a word for eight columns of x, as nibbles_subnormal.wgsl reads them, but −8 is applied
// by half-precision arithmetic, to two nibbles at once: exactly, because half-precision subnormals are
// whole multiples of 2^−24.
//
// Assumes: the device has the feature shader-f16, and its arithmetic keeps subnormals, as
// probe/half_arithmetic.wgsl finds out.
//
// Defines: UNSCALE, arrange_first, arrange_second, unpack_first, unpack_second.

const UNSCALE = 16777216.0;

fn arrange_first(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.x, high.x, low.z, high.z);
}

fn arrange_second(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.y, high.y, low.w, high.w) * 0.0625;
}

// Return (n − 8)·2^−24 of the nibbles at bits 0 and 16.
fn two_even(word: u32) -> vec2<f32> {
    return vec2<f32>(vec2<f16>(unpack2x16float(word & 0x000F000Fu)) - 4.76837158203125e-7h);
}

// Return (n − 8)·2^−20 of the nibbles at bits 4 and 20.
fn two_odd(word: u32) -> vec2<f32> {
    return vec2<f32>(vec2<f16>(unpack2x16float(word & 0x00F000F0u)) - 7.62939453125e-6h);
}

fn unpack_first(word: u32) -> vec4<f32> {
    return vec4<f32>(two_even(word), two_even(word >> 8u));
}

fn unpack_second(word: u32) -> vec4<f32> {
    return vec4<f32>(two_odd(word), two_odd(word >> 8u));
}
