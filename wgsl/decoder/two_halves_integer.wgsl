// Two half-precision numbers of a word, on every device.
//
// Needs: half_to_float.
// Defines: two_halves.

fn two_halves(word: u32) -> vec2<f32> {
    return vec2<f32>(half_to_float(word & 0xFFFFu), half_to_float(word >> 16u));
}
