// Scales [V, K/G] as 16-bit floats, two to a word.
//
// In range: callers keep the row below V and the group below K / G.
//
// Needs: embed_dim, group_size, half_of_word.
// Defines: t_scales, load_scale.

@group(0) @binding(3) var<storage, read> t_scales: array<u32>;  // [V][K / G] halves, two each

fn load_scale(row: u32, group: u32) -> f32 {
    let at = row * (embed_dim() / group_size()) + group;
    return half_of_word(t_scales[at >> 1u], at & 1u);
}
