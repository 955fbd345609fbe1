// The shape of the matrix as ExecuTorch's WebGPU backend passes it to the embedding.
//
// Defines: params, embed_dim, group_size.

struct Params {
    embed_dim: u32,
    blocks_per_row: u32,  // K / 32
    num_indices: u32,
    group_size: u32,
    groups_per_row: u32,
    bytes_per_row: u32,  // K / 2
    total_blocks: u32,  // of 32 columns, in the result
    is_linear_weight: u32,  // the nibble convention: 0 is that of the embedding
}

@group(0) @binding(4) var<uniform> params: Params;  // set by the host for each shape

fn embed_dim() -> u32 {
    return params.embed_dim;
}

fn group_size() -> u32 {
    return params.group_size;
}
