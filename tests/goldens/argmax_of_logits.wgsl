// ---- reduce/of_logits.wgsl

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

// ---- reduce/order.wgsl

// The order of floats as an order of unsigned integers: NaN first, then from infinity down.
//
// Implementations may assume that no float is NaN, so floats are compared by their bits: those of
// positive floats lie above those of negative floats, which are mirrored. −0 and 0 are equal, and
// so are all NaN.
//
// Defines: order.

// Return 0x007fffff for −∞ and more for larger floats.
fn order(bits: u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    let found = select(magnitude | 0x80000000u, ~bits, bits > 0x80000000u);
    return select(found, 0xffffffffu, magnitude > 0x7f800000u);
}

// ---- reduce/rank.wgsl

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

// ---- reduce/to_entries.wgsl

// The output of a reduction: entries, which another one may read.
//
// In range: callers keep the place below the number of entries that are kept.
//
// Defines: store_entry.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;  // [rows][slots][KEPT or 1], bits of a logit and its id

fn store_entry(place: u32, entry: vec2<u32>) {
    t_out[place] = entry;
}

// ---- reduce/argmax.wgsl

// The best entry of each slice of each row: the first of the largest, as numpy's argmax finds it.
//
// A workgroup of 256 invocations reduces a slice of SLICE entries to one: each invocation walks
// entries that lie 256 apart, then the invocations meet in workgroup memory. Run again on the
// entries that it left (of_candidates.wgsl), the kernel ends with one entry a row.
//
// Grid: rows · ⌈COLUMNS / SLICE⌉ workgroups, those of a row side by side, folded over x and y.
// In range: workgroups past the last row do nothing; entry_at() reads nothing past COLUMNS; an
// invocation's place is below LANES.
//
// Needs: COLUMNS, NO_ID, rank, entry_at, comes_first, store_entry, slot_of.
// Defines: sizes, main.

override SLICE: u32 = 1024u;  // entries that a workgroup reduces to one

const LANES = 256u;

@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // rows; of logits: the first id, the first slot, the slots of a row

var<workgroup> best: array<vec2<u32>, 256>;  // rank and column

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let slices = (COLUMNS + SLICE - 1u) / SLICE;
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / slices;
    if row >= sizes.x {
        return;
    }
    let first = flat % slices * SLICE;

    var mine = vec2<u32>(0u, NO_ID);
    for (var i = lane; i < SLICE; i += LANES) {
        let other = vec2<u32>(rank(entry_at(row, first + i)), first + i);
        if comes_first(other, mine) {
            mine = other;
        }
    }
    best[lane] = mine;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half && comes_first(best[lane + half], best[lane]) {
            best[lane] = best[lane + half];
        }
    }
    if lane == 0u {
        store_entry(slot_of(row, flat % slices, slices), entry_at(row, best[0].y));
    }
}
