// The shape of the matrix as ExecuTorch's packing op passes it: K and V are push constants.
//
// Defines: embed_dim, vocab.

struct PushConstants {
    packed_sizes: vec4<i32>,  // of the result, which follows from the others
    orig_sizes: vec2<i32>,  // K, V
}

@group(0) @binding(5) var<uniform> push_constants: PushConstants;  // what ExecuTorch pushes

fn embed_dim() -> u32 {
    return u32(push_constants.orig_sizes.x);
}

fn vocab() -> u32 {
    return u32(push_constants.orig_sizes.y);
}
