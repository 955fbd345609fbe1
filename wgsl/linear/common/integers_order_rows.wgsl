// The order of integers of x for a weight in rows: of eight columns, the even ones, then the odd
// ones, as `word & 0x0F0F0F0F` and `(word >> 4) & 0x0F0F0F0F` take the nibbles of a word.
//
// Defines: first_columns, second_columns, ScaleWords, scale_words_of.

fn first_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.xz, high.xz);
}

fn second_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.yw, high.yw);
}

// The scale of a chunk, and the offset of its sum.
alias ScaleWords = vec2<u32>;

fn scale_words_of(scale: f32, first_half: i32, second_half: i32) -> ScaleWords {
    return ScaleWords(bitcast<u32>(scale), bitcast<u32>(first_half + second_half));
}
