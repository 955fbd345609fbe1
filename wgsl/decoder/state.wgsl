// Where the sequence is. The host writes it before a prompt; during generation the device does
// (decoder/advance.wgsl).
//
// In range: both places are constants.
//
// Defines: first_position, row_count.

@group(0) @binding(7) var<storage, read> t_state: array<u32>;  // position of the first row, rows

fn first_position() -> u32 {
    return t_state[0];
}

fn row_count() -> u32 {
    return t_state[1];
}
