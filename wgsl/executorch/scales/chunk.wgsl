// The scales of the chunk of columns 32·k32 … 32·k32 + 31 of a row, one for each 8 columns. Where
// groups are multiples of 32 columns, the chunk has one scale, which is loaded once.
//
// Assumes: G % 8 == 0.
//
// Needs: load_scale, group_size.
// Defines: load_chunk_scales.

fn load_chunk_scales(row: u32, k32: u32) -> vec4<f32> {
    let column = 32u * k32;
    let first = load_scale(row, column / group_size());
    if group_size() % 32u == 0u {
        return vec4<f32>(first);
    }
    let second = load_scale(row, (column + 8u) / group_size());
    let third = load_scale(row, (column + 16u) / group_size());
    let fourth = load_scale(row, (column + 24u) / group_size());
    return vec4<f32>(first, second, third, fourth);
}
