// The GEMV's weight in 8 bits with an offset: a chunk is 32 bytes, a scale and an offset.
//
// A value is scale · (q − 128) + (offset + 128 · scale): of the centre of a group, which is zero or the
// smaller number as a rule, the sum of x takes care.
//
// Assumes: K % 32 == 0.
// In range: callers keep the row below V and the chunk below K / 32.
//
// Needs: embed_dim, load_pair, X.
// Defines: Chunk, load_chunk, arrange, dot_chunk.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 16], 16 columns each

struct Chunk {
    low: vec4<u32>,
    high: vec4<u32>,
    pair: vec2<f32>,  // scale and offset
}

fn load_chunk(row: u32, chunk: u32) -> Chunk {
    let at = row * (embed_dim() / 16u) + chunk * 2u;
    return Chunk(t_weight[at], t_weight[at + 1u], load_pair(row, chunk));
}

fn arrange(x: X) -> X {
    return x;
}

// Return sum + the products of the four bytes of a word, less 128, and x.
fn dot_bytes(word: u32, x: vec4<f32>, sum: f32) -> f32 {
    let bytes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xFFu);
    let n = vec4<f32>(vec4<i32>(bytes) - 128);
    return fma(n.w, x.w, fma(n.z, x.z, fma(n.y, x.y, fma(n.x, x.x, sum))));
}

fn dot_chunk(chunk: Chunk, x: X) -> f32 {
    let first = dot_bytes(chunk.low.y, x.b, dot_bytes(chunk.low.x, x.a, 0.0));
    let second = dot_bytes(chunk.low.w, x.d, dot_bytes(chunk.low.z, x.c, 0.0));
    let third = dot_bytes(chunk.high.y, x.f, dot_bytes(chunk.high.x, x.e, 0.0));
    let fourth = dot_bytes(chunk.high.w, x.h, dot_bytes(chunk.high.z, x.g, 0.0));
    let centre = fma(128.0, chunk.pair.x, chunk.pair.y);
    return fma((first + second) + (third + fourth), chunk.pair.x, x.sum * centre);
}
