// The input of a reduction: rows of COLUMNS logits, which may be those of one part of a matrix. An
// entry is a logit's bits and its id. The entries that are kept of all parts make one row: those of
// this part begin at slot sizes.z of sizes.w.
//
// In range: callers keep the row below the number of rows and the column below COLUMNS.
//
// Needs: COLUMNS, sizes.
// Defines: load_entry, slot_of.

@group(0) @binding(1) var<storage, read> t_in: array<u32>;  // [rows][COLUMNS], bits of logits

fn load_entry(row: u32, column: u32) -> vec2<u32> {
    return vec2<u32>(t_in[row * COLUMNS + column], sizes.y + column);
}

fn slot_of(row: u32, slice: u32, slices: u32) -> u32 {
    return row * sizes.w + sizes.z + slice;
}
