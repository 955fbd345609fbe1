// The shape of the matrix as ExecuTorch gives it: K with the sizes of the output, G pushed.

struct PushConstants {
    group_size: i32,
    is_linear_weight: i32,  // the variant says it already
}

@group(0) @binding(4) var<uniform> out_sizes: vec4<i32>;  // K, then the ids' dimensions, last first
@group(0) @binding(5) var<uniform> push_constants: PushConstants;

fn embed_dim() -> u32 {
    return u32(out_sizes.x);
}

fn group_size() -> u32 {
    return u32(push_constants.group_size);
}
