// A bias [V] of 32-bit floats.

@group(0) @binding(5) var<storage, read> t_bias: array<f32>;

fn load_bias(row: u32) -> f32 {
    return t_bias[row];
}
