// The order of integers of x for a weight in blocks: of eight columns, the first four, then the
// last four, each the columns of a block.
//
// Defines: first_columns, second_columns, ScaleWords, scale_words_of.

fn first_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return low;
}

fn second_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return high;
}

// The scale of a chunk, and the offset of its sum: all of it, and each half.
alias ScaleWords = vec4<u32>;

fn scale_words_of(scale: f32, first_half: i32, second_half: i32) -> ScaleWords {
    return ScaleWords(
        bitcast<u32>(scale),
        bitcast<u32>(first_half + second_half),
        bitcast<u32>(first_half),
        bitcast<u32>(second_half),
    );
}
