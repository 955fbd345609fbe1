// Packing where the host is free to choose the grid: one invocation makes two blocks.
//
// Grid: ⌈⌈V / 8⌉ · K / 8 / 64⌉ workgroups of 64 invocations, folded over x and y; invocations run
// along k8 first, then along n8.
//
// Needs: embed_dim, vocab, pack_blocks.
// Defines: PADDING, main.

const PADDING = 0u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let words = embed_dim() / 8u;
    let strips = (vocab() + 7u) / 8u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    if flat < words * strips {
        pack_blocks(flat / words, flat % words);
    }
}
