// Scales [K/G, padded V] as 32-bit floats: those of neighbouring rows are neighbours.
//
// Needs: params.
// Defines: load_scale.

@group(0) @binding(3) var<storage, read> t_scales: array<f32>;  // [K / G][padded V]

fn load_scale(row: u32, group: u32) -> f32 {
    return t_scales[group * params.padded_n + row];
}
