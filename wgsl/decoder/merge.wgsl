// The slices of a head's attention put together.
//
// A workgroup of 64 invocations makes one head of one row; an invocation makes a quad of it.
//
// Grid: rows · HEADS workgroups, folded over x and y; those past the last row do nothing.
//
// Needs: HEAD_DIM, HEADS, row_count, place_of_quad.
// Defines: main.

override SLICES: u32 = 2u;  // parts of the positions

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][HEADS · HEAD_DIM / 4]
@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // [rows][HEADS][SLICES][HEAD_DIM / 4]
@group(0) @binding(5) var<storage, read> t_weights: array<vec2<f32>>;  // [rows][HEADS][SLICES], largest score, sum of weights

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let width = HEAD_DIM / 4u;
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / HEADS;
    if row >= row_count() || lane >= width {
        return;
    }
    var top = t_weights[flat * SLICES].x;
    for (var i = 1u; i < SLICES; i++) {
        top = max(top, t_weights[flat * SLICES + i].x);
    }
    var total = vec4<f32>(0.0);
    var weight_total = 0.0;
    for (var i = 0u; i < SLICES; i++) {
        let at = flat * SLICES + i;
        let factor = exp(t_weights[at].x - top);
        total += t_in[at * width + lane] * factor;
        weight_total += t_weights[at].y * factor;
    }
    let k4 = flat % HEADS * width + lane;
    t_out[row * HEADS * width + place_of_quad(k4, HEADS * width)] = total / weight_total;
}
