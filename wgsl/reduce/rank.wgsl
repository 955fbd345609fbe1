// The order of floats as an order of unsigned integers: NaN first, then from infinity down.
//
// Implementations may assume that no float is NaN, so floats are compared by their bits: those of
// positive floats lie above those of negative floats, which are mirrored. −0 and 0 have one rank,
// and so have all NaN. Among equals the smaller place wins. It has the smaller id, because slices
// are taken in order and keep their order.
//
// Needs: load_entry.
// Defines: COLUMNS, NO_ID, entry_at, rank, comes_first.

override COLUMNS: u32;  // entries in a row of the input

const NO_ID = 0xffffffffu;

fn entry_at(row: u32, column: u32) -> vec2<u32> {
    if column < COLUMNS {
        return load_entry(row, column);
    }
    return vec2<u32>(0u, NO_ID);
}

// Return 0x007fffff for −∞ and more for larger floats; 0 for an entry that only fills a slice.
fn rank(entry: vec2<u32>) -> u32 {
    let bits = entry.x;
    let magnitude = bits & 0x7fffffffu;
    var order = select(magnitude | 0x80000000u, ~bits, bits > 0x80000000u);
    order = select(order, 0xffffffffu, magnitude > 0x7f800000u);
    return select(order, 0u, entry.y == NO_ID);
}

// Tell whether the entry of rank and place `a` comes before that of `b`.
fn comes_first(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}
