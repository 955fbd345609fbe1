// The GEMV's weight in half precision: a chunk is 64 bytes.
//
// Assumes: K % 32 == 0.
// In range: callers keep the row below V and the chunk below K / 32.
//
// Needs: embed_dim, X, two_halves.
// Defines: Chunk, load_chunk, arrange, dot_chunk.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 8], eight halves each

struct Chunk {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn load_chunk(row: u32, chunk: u32) -> Chunk {
    let at = row * (embed_dim() / 8u) + chunk * 4u;
    return Chunk(t_weight[at], t_weight[at + 1u], t_weight[at + 2u], t_weight[at + 3u]);
}

fn arrange(x: X) -> X {
    return x;
}

fn quad_of_halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(two_halves(words.x), two_halves(words.y));
}

fn dot_eight(words: vec4<u32>, low: vec4<f32>, high: vec4<f32>) -> f32 {
    return dot(quad_of_halves(words.xy), low) + dot(quad_of_halves(words.zw), high);
}

fn dot_chunk(chunk: Chunk, x: X) -> f32 {
    let first = dot_eight(chunk.a, x.a, x.b) + dot_eight(chunk.b, x.c, x.d);
    return first + dot_eight(chunk.c, x.e, x.f) + dot_eight(chunk.d, x.g, x.h);
}
