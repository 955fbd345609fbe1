// The weight as rows of K/2 bytes in the embedding convention. K is a multiple of 8, so every row
// is a number of whole words.
//
// In range: callers keep the row below V and the word below K / 8.
//
// Needs: embed_dim, quad_of_nibbles.
// Defines: load_weight_word, load_weight_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<u32>;  // [V][K / 8], eight columns each

fn load_weight_word(row: u32, k8: u32) -> u32 {
    let word = t_weight[row * (embed_dim() / 8u) + k8];
    return ((word & 0x0F0F0F0Fu) << 4u) | ((word >> 4u) & 0x0F0F0F0Fu);
}

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let word = t_weight[row * (embed_dim() / 8u) + (k4 >> 1u)];
    return quad_of_nibbles(word >> ((k4 & 1u) * 16u));
}
