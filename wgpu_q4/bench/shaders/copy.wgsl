// The ceiling: copies 16-byte values from one buffer to another.  An invocation copies four that
// lie 256 apart, all loads before all stores; a workgroup of 256 copies 1024 neighbouring ones.
// Assumes a multiple of 1024 values.

@group(0) @binding(0) var<storage, read_write> target_values: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> source_values: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (workgroup.y * grid.x + workgroup.x) * 1024u + lane;
    let a = source_values[at];
    let b = source_values[at + 256u];
    let c = source_values[at + 512u];
    let d = source_values[at + 768u];
    target_values[at] = a;
    target_values[at + 256u] = b;
    target_values[at + 512u] = c;
    target_values[at + 768u] = d;
}
