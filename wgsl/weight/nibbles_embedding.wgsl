// Nibbles in the embedding convention: byte j of a row holds column 2j in its high nibble and
// column 2j + 1 in its low nibble.
//
// Defines: quad_of_nibbles.

// Return four columns, from the low half of a word.
fn quad_of_nibbles(nibbles: u32) -> vec4<f32> {
    let values = (vec4<u32>(nibbles) >> vec4<u32>(4u, 0u, 12u, 8u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}
