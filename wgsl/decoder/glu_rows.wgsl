// The gated linear unit of many rows: activate(gate) · up.
//
// An invocation makes a quad of a row.
//
// Grid: ⌈rows · WIDTH / 4 / 256⌉ workgroups of 256 invocations, folded over x and y.
//
// Needs: row_count, activate.
// Defines: main.

override WIDTH: u32;  // columns of the gate, and of the result

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][WIDTH / 4]
@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // [rows][2 · WIDTH / 4], gate and up

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quads = WIDTH / 4u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 256u + lane;
    let row = flat / quads;
    if row >= row_count() {
        return;
    }
    let gate = t_in[row * quads * 2u + flat % quads];
    let up = t_in[row * quads * 2u + quads + flat % quads];
    let gated = vec4<f32>(
        activate(gate.x), activate(gate.y), activate(gate.z), activate(gate.w),
    );
    t_out[flat] = gated * up;
}
