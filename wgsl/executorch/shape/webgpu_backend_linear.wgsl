// The shape of the matrix as ExecuTorch's WebGPU backend passes it to the linear op.
//
// Defines: params, embed_dim, group_size, vocab.

struct Params {
    m: u32,  // 1
    n: u32,  // V
    k: u32,
    k_packed: u32,  // K / 2
    group_size: u32,
    padded_n: u32,  // a row of the scales
    has_bias: u32,
    padding: u32,
}

@group(0) @binding(5) var<uniform> params: Params;  // set by the host for each shape

fn embed_dim() -> u32 {
    return params.k;
}

fn group_size() -> u32 {
    return params.group_size;
}

fn vocab() -> u32 {
    return params.n;
}
