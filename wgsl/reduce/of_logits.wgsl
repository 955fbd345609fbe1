// What is reduced: rows of COLUMNS floats, each an entry with its bits and its column as id.
//
// In range: callers keep the row below the rows that there are and the column below COLUMNS.

@group(0) @binding(1) var<storage, read> t_in: array<u32>;

fn load_entry(row: u32, column: u32) -> vec2<u32> {
    return vec2<u32>(t_in[row * COLUMNS + column], column);
}
