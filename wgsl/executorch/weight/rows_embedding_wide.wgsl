// The weight as rows of K/2 bytes in the embedding convention, read 16 bytes (a chunk of 32
// columns) at a time.
//
// Assumes: K % 32 == 0, so that every row starts at a multiple of 16 bytes.
//
// Needs: embed_dim, quad_of_nibbles.
// Defines: t_weight, load_chunk_values.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 32], 32 columns each

fn load_chunk_values(row: u32, k32: u32) -> array<vec4<f32>, 8> {
    let words = t_weight[row * (embed_dim() / 32u) + k32];
    return array<vec4<f32>, 8>(
        quad_of_nibbles(words.x),
        quad_of_nibbles(words.x >> 16u),
        quad_of_nibbles(words.y),
        quad_of_nibbles(words.y >> 16u),
        quad_of_nibbles(words.z),
        quad_of_nibbles(words.z >> 16u),
        quad_of_nibbles(words.w),
        quad_of_nibbles(words.w >> 16u),
    );
}
