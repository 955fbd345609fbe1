// Weight as rows of K/2 bytes, embedding convention, read 16 bytes at a time.
// Assumes K % 32 == 0, so that every row starts on 16 bytes.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;

fn load_weight_run(row: u32, k32: u32) -> array<vec4<f32>, 8> {
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
