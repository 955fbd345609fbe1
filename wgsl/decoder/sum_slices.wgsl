// The product of many rows of x, from the sums that the workgroups of each slice of its columns left
// (linear/gemm/gemm.wgsl), plus a bias.
//
// An invocation makes a quad of a row.
//
// Grid: ⌈rows · WIDTH / 4 / 256⌉ workgroups of 256 invocations, folded over x and y.
//
// Needs: row_count, load_bias.
// Defines: main.

override WIDTH: u32;  // columns of the product, a multiple of 4
override SLICES: u32;  // of the columns of x

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][WIDTH / 4]
@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // [SLICES][rows][WIDTH / 4]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quads = WIDTH / 4u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 256u + lane;
    if flat / quads >= row_count() {
        return;
    }
    var sum = t_in[flat];
    for (var slice = 1u; slice < SLICES; slice++) {
        sum += t_in[slice * row_count() * quads + flat];
    }
    let n = flat % quads * 4u;
    t_out[flat] = sum + vec4<f32>(load_bias(n), load_bias(n + 1u), load_bias(n + 2u), load_bias(n + 3u));
}
