// The grid of packing that ExecuTorch dispatches: x runs over k8, y over n8; it may be rounded up.

const PADDING = 0x88888888u;  // eight zeros

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    if all(at.xy < vec2<u32>(embed_dim() / 8u, (vocab() + 7u) / 8u)) {
        pack_blocks(at.y, at.x);
    }
}
