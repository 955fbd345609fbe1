// The input of a reduction: rows of COLUMNS floats. An entry is a float's bits, and its column as
// its id.
//
// In range: callers keep the row below the number of rows and the column below COLUMNS.
//
// Needs: COLUMNS.
// Defines: load_entry.

@group(0) @binding(1) var<storage, read> t_in: array<u32>;  // [rows][COLUMNS], bits of logits

fn load_entry(row: u32, column: u32) -> vec2<u32> {
    return vec2<u32>(t_in[row * COLUMNS + column], column);
}
