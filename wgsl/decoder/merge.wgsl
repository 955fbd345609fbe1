// The slices of a head's attention put together.
//
// A workgroup of 256 invocations makes one head of one row. An invocation adds up a quad of every
// (256 / width)th slice; then the invocations of a quad meet in workgroup memory.
//
// Grid: rows · HEADS workgroups, folded over x and y; those past the last row do nothing.
// Assumes: SLICES is at most 256.
//
// Needs: HEAD_DIM, HEADS, row_count, place_of_quad.
// Defines: main.

override SLICES: u32 = 2u;  // parts of the positions

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][HEADS · HEAD_DIM / 4]
@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // [rows][HEADS][SLICES][HEAD_DIM / 4]
@group(0) @binding(5) var<storage, read> t_weights: array<vec2<f32>>;  // [rows][HEADS][SLICES], largest score, sum of weights

const LANES = 256u;

var<workgroup> tops: array<f32, 256>;
var<workgroup> weights: array<f32, 256>;
var<workgroup> folded: array<vec2<f32>, 16>;
var<workgroup> sums: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let width = HEAD_DIM / 4u;
    let parts = LANES / width;
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / HEADS;
    if row >= row_count() {
        return;
    }
    var own = vec2<f32>(-1e30, 0.0);
    if lane < SLICES {
        own = t_weights[flat * SLICES + lane];
    }
    tops[lane] = own.x;
    workgroupBarrier();
    if lane < 16u {
        var top = tops[lane];
        for (var i = 1u; i < 16u; i++) {
            top = max(top, tops[i * 16u + lane]);
        }
        folded[lane] = vec2<f32>(top, 0.0);
    }
    workgroupBarrier();
    var top = folded[0].x;
    for (var i = 1u; i < 16u; i++) {
        top = max(top, folded[i].x);
    }
    tops[lane] = exp(own.x - top);
    weights[lane] = own.y * exp(own.x - top);
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var slice = lane / width; slice < SLICES; slice += parts) {
        if lane < parts * width {
            sum += t_in[(flat * SLICES + slice) * width + lane % width] * tops[slice];
        }
    }
    sums[lane] = sum;
    if lane < 16u {
        var weight = 0.0;
        for (var i = 0u; i < 16u; i++) {
            weight += weights[i * 16u + lane];
        }
        folded[lane].y = weight;
    }
    workgroupBarrier();
    if lane < width {
        var total = vec4<f32>(0.0);
        for (var i = 0u; i < parts; i++) {
            total += sums[i * width + lane];
        }
        var weight_total = 0.0;
        for (var i = 0u; i < 16u; i++) {
            weight_total += folded[i].y;
        }
        let k4 = flat % HEADS * width + lane;
        t_out[row * HEADS * width + place_of_quad(k4, HEADS * width)] = total / weight_total;
    }
}
