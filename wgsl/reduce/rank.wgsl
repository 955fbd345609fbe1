// Entries by rank: the larger the float, the higher; among equals the smaller place wins. It has the
// smaller id, because slices are taken in order and keep their order.
//
// Needs: load_entry, order.
// Defines: COLUMNS, NO_ID, entry_at, rank, comes_first.

override COLUMNS: u32;  // entries in a row of the input

const NO_ID = 0xffffffffu;

fn entry_at(row: u32, column: u32) -> vec2<u32> {
    if column < COLUMNS {
        return load_entry(row, column);
    }
    return vec2<u32>(0u, NO_ID);
}

// Return the order of an entry's float; 0 for an entry that only fills a slice.
fn rank(entry: vec2<u32>) -> u32 {
    return select(order(entry.x), 0u, entry.y == NO_ID);
}

// Tell whether the entry of rank and place `a` comes before that of `b`.
fn comes_first(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}
