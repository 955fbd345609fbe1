// What is reduced: the entries that an earlier dispatch kept, COLUMNS of them for each row.
//
// In range: callers keep the row below the rows that there are and the column below COLUMNS.

@group(0) @binding(1) var<storage, read> t_in: array<vec2<u32>>;

fn load_entry(row: u32, column: u32) -> vec2<u32> {
    return t_in[row * COLUMNS + column];
}
