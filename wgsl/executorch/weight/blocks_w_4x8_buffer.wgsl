// The weight as blocks of 8 rows × 4 columns in the order in which ExecuTorch's weight-only linear op
// packs them since v1.4 ("w_4x8"): byte j of component c of block (k4, n8) holds column 4·k4 + j of
// row 8·n8 + 2·c in its low nibble, and of row 8·n8 + 2·c + 1 in its high nibble. The blocks of all
// strips for one k4 are neighbours.
//
// The host does not pass the number of strips: the buffer holds K / 4 times as many blocks.
//
// Needs: embed_dim.
// Defines: load_weight_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [K / 4][strips], a block each

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let strips = arrayLength(&t_weight) / (embed_dim() / 4u);
    // Only the component that holds this row is read.
    let word = t_weight[k4 * strips + (row >> 3u)][(row >> 1u) & 3u];
    let nibbles = word >> ((row & 1u) * 4u);
    let values = (vec4<u32>(nibbles) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}
