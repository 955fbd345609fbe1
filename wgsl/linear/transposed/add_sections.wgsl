// The sections of a transposed product, added up in their order.
//
// One invocation adds four columns of a row of the result.
//
// Grid: ⌈M · K / 4 / 64⌉ workgroups of 64 invocations, folded over x and y.
// In range: invocations past the last quad do nothing, and sections are below the number of sections.
//
// Needs: embed_dim.
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // [sections][M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, sections of a part, those of the parts before, those of all

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quads = sizes.x * (embed_dim() / 4u);
    let quad = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    if quad >= quads {
        return;
    }
    var sum = vec4<f32>(0.0);
    for (var section = 0u; section < sizes.w; section++) {
        sum += t_in[section * quads + quad];
    }
    t_out[quad] = sum;
}
