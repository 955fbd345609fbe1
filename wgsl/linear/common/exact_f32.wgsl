// Nibbles to floats without a conversion instruction, exactly.
//
// A nibble n or'ed at bit p into the mantissa of 2^23 makes the float 2^23 + n·2^p. Subtracting
// 2^23 + 8·2^p leaves (n − 8)·2^p, without rounding. Four nibbles of a word are taken where they
// lie, at p = 0, 4, 8, 12; the powers of two go into the numbers that they are multiplied with,
// also exactly.
//
// Defines: UNSHIFT, shifted_quad, total.

const NIBBLES = vec4<u32>(0x000Fu, 0x00F0u, 0x0F00u, 0xF000u);
const MAGIC = vec4<u32>(0x4B000000u);
const OFFSETS = vec4<f32>(8388616.0, 8388736.0, 8390656.0, 8421376.0);
const UNSHIFT = vec4<f32>(1.0, 0.0625, 0.00390625, 0.000244140625);

// Return (n − 8)·(1, 16, 256, 4096) of the four low nibbles of `word`.
fn shifted_quad(word: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>((vec4<u32>(word) & NIBBLES) | MAGIC) - OFFSETS;
}

fn total(sums: vec4<f32>) -> f32 {
    return (sums.x + sums.y) + (sums.z + sums.w);
}
