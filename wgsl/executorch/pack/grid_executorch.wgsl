// Packing on the grid that ExecuTorch dispatches: one invocation makes two blocks.
//
// Grid: K/8 × ⌈V / 8⌉ invocations, which the host may round up.
//
// Needs: embed_dim, vocab, pack_blocks.
// Defines: PADDING, main.

const PADDING = 0x88888888u;  // eight weights of zero

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    if all(at.xy < vec2<u32>(embed_dim() / 8u, (vocab() + 7u) / 8u)) {
        pack_blocks(at.y, at.x);
    }
}
