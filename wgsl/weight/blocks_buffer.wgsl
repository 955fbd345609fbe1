// The weight as blocks of 8 rows × 4 columns in a buffer: byte j of component r of block (n8, k4)
// holds column 4·k4 + j of row 8·n8 + r in its low nibble, and of row 8·n8 + 4 + r in its high
// nibble.
//
// In range: callers keep the strip n8 below ⌈V / 8⌉ and the block k4 below K / 4.
//
// Needs: embed_dim.
// Defines: load_weight_block, load_weight_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [⌈V / 8⌉][K / 4], a block each

fn load_weight_block(n8: u32, k4: u32) -> vec4<u32> {
    return t_weight[n8 * (embed_dim() / 4u) + k4];
}

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    // Only the component that holds this row is read.
    let word = t_weight[(row >> 3u) * (embed_dim() / 4u) + k4][row & 3u];
    let nibbles = word >> (row & 4u);
    let values = (vec4<u32>(nibbles) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}
