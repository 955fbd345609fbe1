// The shape of the matrix as ExecuTorch's embedding op passes it: K is the first size of the
// output, G is a push constant.
//
// Defines: out_sizes, embed_dim, group_size.

struct PushConstants {
    group_size: i32,
    is_linear_weight: i32,  // not read: the kernel's name says it
}

@group(0) @binding(4) var<uniform> out_sizes: vec4<i32>;  // K, then the ids' dimensions, last first
@group(0) @binding(5) var<uniform> push_constants: PushConstants;  // what ExecuTorch pushes

fn embed_dim() -> u32 {
    return u32(out_sizes.x);
}

fn group_size() -> u32 {
    return u32(push_constants.group_size);
}
