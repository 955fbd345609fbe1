// Two half-precision numbers of a word, by the built-in function. This piece is only for devices on
// which probe/halves.wgsl found that it keeps subnormals.
//
// Defines: two_halves.

fn two_halves(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}
