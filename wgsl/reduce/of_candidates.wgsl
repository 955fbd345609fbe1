// The input of a reduction: the entries that an earlier dispatch kept, COLUMNS of them for each
// row.
//
// In range: callers keep the row below the number of rows and the column below COLUMNS.
//
// Needs: COLUMNS.
// Defines: load_entry, slot_of.

@group(0) @binding(1) var<storage, read> t_in: array<vec2<u32>>;  // [rows][COLUMNS], bits of a logit and its id

fn load_entry(row: u32, column: u32) -> vec2<u32> {
    return t_in[row * COLUMNS + column];
}

fn slot_of(row: u32, slice: u32, slices: u32) -> u32 {
    return row * slices + slice;
}
