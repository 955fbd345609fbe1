// The weight as rows of K/2 bytes in the linear convention, read 16 bytes at a time: nibble i of
// component c of chunk k32 is column 32·k32 + 8·c + i.
//
// Assumes: K % 32 == 0, so that every row starts at a multiple of 16 bytes.
// In range: callers keep the row below V and the chunk below K / 32.
//
// Needs: embed_dim.
// Defines: load_weight_chunk.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 32], 32 columns each

fn load_weight_chunk(row: u32, k32: u32) -> vec4<u32> {
    return t_weight[row * (embed_dim() / 32u) + k32];
}
