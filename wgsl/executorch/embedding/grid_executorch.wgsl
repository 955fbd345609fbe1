// The embedding on the grid that ExecuTorch dispatches: one invocation writes a chunk of 32 columns
// of one id.
//
// Grid: K/32 × last dimension of the ids × product of their other dimensions, in invocations. The
// host may round the grid up, and out_sizes may have shrunk since the grid was made.
// Assumes: K % 32 == 0 and G % 8 == 0.
//
// Needs: out_sizes, embed_dim, load_index, is_known, row_of, load_chunk_values, load_chunk_scales,
// store_eight, embedded.
// Defines: main.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    let width = u32(out_sizes.y);
    let height = u32(out_sizes.z * out_sizes.w);
    if any(at >= vec3<u32>(embed_dim() / 32u, width, height)) {
        return;
    }
    let place = at.yz;
    let id = load_index(place);
    let known = is_known(id);
    let row = row_of(id, known);
    let weights = load_chunk_values(row, at.x);
    let scales = load_chunk_scales(row, at.x);
    let k8 = 4u * at.x;
    store_eight(
        place,
        k8,
        embedded(known, weights[0], scales.x),
        embedded(known, weights[1], scales.x),
    );
    store_eight(
        place,
        k8 + 1u,
        embedded(known, weights[2], scales.y),
        embedded(known, weights[3], scales.y),
    );
    store_eight(
        place,
        k8 + 2u,
        embedded(known, weights[4], scales.z),
        embedded(known, weights[5], scales.z),
    );
    store_eight(
        place,
        k8 + 3u,
        embedded(known, weights[6], scales.w),
        embedded(known, weights[7], scales.w),
    );
}
