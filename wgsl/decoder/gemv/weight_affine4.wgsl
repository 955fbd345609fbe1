// The GEMV's weight in 4 bits with an offset: a chunk is 16 bytes, a scale and an offset.
//
// A value is scale · (q − 8) + (offset + 8 · scale): of the centre of a group, which is the smaller
// number as a rule, the sum of x takes care.
//
// Assumes: K % 32 == 0.
//
// Needs: load_weight_chunk, load_pair, X, dot_nibbles.
// Defines: Chunk, load_chunk, dot_chunk.

struct Chunk {
    words: vec4<u32>,
    pair: vec2<f32>,  // scale and offset
}

fn load_chunk(row: u32, chunk: u32) -> Chunk {
    return Chunk(load_weight_chunk(row, chunk), load_pair(row, chunk));
}

fn dot_chunk(chunk: Chunk, x: X) -> f32 {
    let centre = fma(8.0, chunk.pair.x, chunk.pair.y);
    return fma(dot_nibbles(chunk.words, x), chunk.pair.x, x.sum * centre);
}
