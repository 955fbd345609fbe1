// Scales [V, K/G] as 32-bit floats.

@group(0) @binding(3) var<storage, read> t_scales: array<f32>;

fn load_scale(row: u32, group: u32) -> f32 {
    return t_scales[row * (embed_dim() / group_size()) + group];
}
