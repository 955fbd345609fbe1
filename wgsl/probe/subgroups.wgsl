// How wide subgroups are on this device, and in which order their lanes follow one another: an invocation
// stores both.
//
// Grid: one workgroup of 256 invocations.
//
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;  // [256], lanes of the subgroup, lane

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    t_out[index] = vec2<u32>(size, lane);
}
