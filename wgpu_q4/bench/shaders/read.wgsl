// The ceiling of work that only reads.  An invocation reads eight 16-byte values that lie 256 apart;
// a workgroup of 256 reads 2048 neighbouring ones.  Nothing is written unless the values happen to
// combine to one number, which the zeros in the buffer do not; so no compiler can leave the reads
// out.  Assumes a multiple of 2048 values.

@group(0) @binding(0) var<storage, read_write> found: array<u32>;
@group(0) @binding(1) var<storage, read> source_values: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (workgroup.y * grid.x + workgroup.x) * 2048u + lane;
    let a = source_values[at] ^ source_values[at + 256u];
    let b = source_values[at + 512u] ^ source_values[at + 768u];
    let c = source_values[at + 1024u] ^ source_values[at + 1280u];
    let d = source_values[at + 1536u] ^ source_values[at + 1792u];
    let all = (a ^ b) ^ (c ^ d);
    if (all.x ^ all.y ^ all.z ^ all.w) == 0x9E3779B9u {
        found[0] = at;
    }
}
