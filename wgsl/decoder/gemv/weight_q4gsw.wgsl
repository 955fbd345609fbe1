// The GEMV's weight in 4 bits: a chunk is 16 bytes and a scale.
//
// Assumes: K % 32 == 0 and G % 32 == 0.
//
// Needs: load_weight_chunk, load_scale, group_size, X, dot_nibbles.
// Defines: Chunk, load_chunk, dot_chunk.

struct Chunk {
    words: vec4<u32>,
    scale: f32,
}

fn load_chunk(row: u32, chunk: u32) -> Chunk {
    return Chunk(load_weight_chunk(row, chunk), load_scale(row, chunk * 32u / group_size()));
}

fn dot_chunk(chunk: Chunk, x: X) -> f32 {
    return dot_nibbles(chunk.words, x) * chunk.scale;
}
