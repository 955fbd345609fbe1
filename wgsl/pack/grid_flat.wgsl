// The grid of packing where the host is free to choose it: x runs over k8, then over n8, flat;
// workgroups are folded over x and y.

const PADDING = 0u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let octets = embed_dim() / 8u;
    let strips = (vocab() + 7u) / 8u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    if flat < octets * strips {
        pack_blocks(flat / octets, flat % octets);
    }
}
