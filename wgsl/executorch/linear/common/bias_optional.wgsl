// A bias [V] of 32-bit floats, if the host says that there is one; else the buffer means nothing.
//
// Needs: params.
// Defines: load_bias.

@group(0) @binding(4) var<storage, read> t_bias: array<f32>;  // [V], or one value

fn load_bias(row: u32) -> f32 {
    if params.has_bias == 0u {
        return 0.0;
    }
    return t_bias[row];
}
