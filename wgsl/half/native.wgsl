// Half-precision numbers converted by the built-in functions.
//
// WGSL leaves open how these functions round, what they make of values out of range, and whether
// they keep subnormals. This piece is only for devices on which probe/halves.wgsl found that they
// round to nearest even, overflow to infinity and keep subnormals. half/integer.wgsl works
// everywhere.
//
// Defines: half_to_float, half_of_word, floats_to_halves.

// Return the half-precision number in the low 16 bits.
fn half_to_float(half: u32) -> f32 {
    return unpack2x16float(half).x;
}

// Return one of the two half-precision numbers in a word. Choosing after both are converted takes fewer
// instructions than a shift and a mask before.
fn half_of_word(word: u32, index: u32) -> f32 {
    return unpack2x16float(word)[index];
}

// Return four floats rounded to half precision.
fn floats_to_halves(values: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}
