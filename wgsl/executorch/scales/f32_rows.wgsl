// Scales [V, K/G] as 32-bit floats, where the host passes how many a row has.
//
// Needs: params.
// Defines: load_scale.

@group(0) @binding(3) var<storage, read> t_scales: array<f32>;  // [V][K / G]

fn load_scale(row: u32, group: u32) -> f32 {
    return t_scales[row * params.groups_per_row + group];
}
