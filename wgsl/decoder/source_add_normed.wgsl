// The residual stream goes on: what a layer's part computed is normalized, multiplied by a gain of
// its own, and added to it.
//
// Needs: embed_dim, sum_of_lanes, EPSILON, t_residual.
// Defines: is_left_alone, start_row, source_quad.

@group(0) @binding(2) var<storage, read> t_in: array<vec4<f32>>;  // [rows][K / 4]
@group(0) @binding(3) var<storage, read> t_in_gain: array<vec4<f32>>;  // [K / 4]

fn is_left_alone(row: u32) -> bool {
    return false;
}

fn start_row(row: u32, lane: u32) -> f32 {
    let quads = embed_dim() / 4u;
    var squares = 0.0;
    for (var k4 = lane; k4 < quads; k4 += 256u) {
        let value = t_in[row * quads + k4];
        squares += dot(value, value);
    }
    let mean = sum_of_lanes(squares, lane) / f32(embed_dim());
    return inverseSqrt(mean + bitcast<f32>(EPSILON));
}

fn source_quad(row: u32, k4: u32, factor: f32) -> vec4<f32> {
    let at = row * (embed_dim() / 4u) + k4;
    return t_residual[at] + t_in[at] * factor * t_in_gain[k4];
}
