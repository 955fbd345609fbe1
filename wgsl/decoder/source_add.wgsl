// The residual stream goes on: what a layer's part computed is added to it.
//
// Needs: embed_dim, t_residual.
// Defines: is_left_alone, start_row, source_quad.

@group(0) @binding(2) var<storage, read> t_in: array<vec4<f32>>;  // [rows][K / 4]

fn is_left_alone(row: u32) -> bool {
    return false;
}

fn start_row(row: u32, lane: u32) -> f32 {
    return 1.0;
}

fn source_quad(row: u32, k4: u32, factor: f32) -> vec4<f32> {
    let at = row * (embed_dim() / 4u) + k4;
    return t_residual[at] + t_in[at];
}
