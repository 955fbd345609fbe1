// Rows of the residual stream: each is updated (source_*.wgsl), then normalized (RMSNorm) and
// multiplied by the gain of the matrix that reads it next.
//
// A workgroup of 256 invocations makes one row; an invocation makes every 256th quad of it.
//
// Grid: a workgroup for each row, folded over x and y; those past the last row do nothing. If
// LAST_ROW is 1, one workgroup makes the last row alone and stores the result as row 0.
//
// Needs: embed_dim, row_count, is_left_alone, start_row, source_quad, place_of_quad.
// Defines: EPSILON, t_residual, sum_of_lanes, main.

override EPSILON: u32;  // bits of the float that is added to the mean of the squares
override LAST_ROW: u32 = 0u;  // 1: the last row alone

const LANES = 256u;

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][K / 4]
@group(0) @binding(1) var<storage, read_write> t_residual: array<vec4<f32>>;  // [rows][K / 4]
@group(0) @binding(8) var<storage, read> t_gain: array<vec4<f32>>;  // [K / 4]

var<workgroup> lane_sums: array<f32, 256>;

// Return the sum of `value` over the lanes.
fn sum_of_lanes(value: f32, lane: u32) -> f32 {
    lane_sums[lane] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lane_sums[lane] += lane_sums[lane + half];
        }
    }
    workgroupBarrier();
    let sum = lane_sums[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quads = embed_dim() / 4u;
    let target_row = workgroup.y * grid.x + workgroup.x;
    var row = target_row;
    if LAST_ROW == 1u {
        row = row_count() - 1u;
    }
    if row >= row_count() || is_left_alone(row) {
        return;
    }
    let factor = start_row(row, lane);
    var squares = 0.0;
    for (var k4 = lane; k4 < quads; k4 += LANES) {
        let value = source_quad(row, k4, factor);
        t_residual[row * quads + k4] = value;
        squares += dot(value, value);
    }
    let mean = sum_of_lanes(squares, lane) / f32(embed_dim());
    let scale = inverseSqrt(mean + bitcast<f32>(EPSILON));
    for (var k4 = lane; k4 < quads; k4 += LANES) {
        let value = t_residual[row * quads + k4] * scale * t_gain[k4];
        t_out[target_row * quads + place_of_quad(k4, quads)] = value;
    }
}
