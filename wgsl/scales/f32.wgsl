// Scales [V, K/G] as 32-bit floats.
//
// In range: callers keep the row below V and the group below K / G.
//
// Needs: embed_dim, group_size.
// Defines: t_scales, load_scale.

@group(0) @binding(3) var<storage, read> t_scales: array<f32>;  // [V][K / G]

fn load_scale(row: u32, group: u32) -> f32 {
    return t_scales[row * (embed_dim() / group_size()) + group];
}
