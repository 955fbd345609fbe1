// The grid of the embedding that ExecuTorch dispatches: x runs over runs of 32 columns, y over the
// ids' last dimension, z over the others.  An invocation writes the run of one id.
//
// The host may round the grid up, and out_sizes may have shrunk since it was made.
// Assumes K % 32 == 0 and G % 8 == 0.

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
    let weights = load_weight_run(row, at.x);
    let scales = load_run_scales(row, at.x);
    let k8 = 4u * at.x;
    store_octet(
        place,
        k8,
        embedded(known, weights[0], scales.x),
        embedded(known, weights[1], scales.x),
    );
    store_octet(
        place,
        k8 + 1u,
        embedded(known, weights[2], scales.y),
        embedded(known, weights[3], scales.y),
    );
    store_octet(
        place,
        k8 + 2u,
        embedded(known, weights[4], scales.z),
        embedded(known, weights[5], scales.z),
    );
    store_octet(
        place,
        k8 + 3u,
        embedded(known, weights[6], scales.w),
        embedded(known, weights[7], scales.w),
    );
}
