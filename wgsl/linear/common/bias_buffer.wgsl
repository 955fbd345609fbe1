// A bias [V] of 32-bit floats.
//
// In range: callers ask for rows below V alone.
//
// Defines: load_bias.

@group(0) @binding(5) var<storage, read> t_bias: array<f32>;  // [V]

fn load_bias(row: u32) -> f32 {
    return t_bias[row];
}
