// The logits of a row as adjust.wgsl left them, and their best.
//
// In range: callers keep the row below the number of rows and the column below COLUMNS; slices are
// ⌈COLUMNS / SLICE⌉.
//
// Needs: LANES, order, weight_of.
// Defines: COLUMNS, SLICE, slices_of_row, find_best, logit_bits, logit_order, logit_weight.

override COLUMNS: u32;  // logits of a row
override SLICE: u32;  // logits of a slice

@group(0) @binding(1) var<storage, read> t_in: array<u32>;  // [rows][COLUMNS], bits of floats
@group(0) @binding(6) var<storage, read> t_best: array<u32>;  // [rows][⌈COLUMNS / SLICE⌉], orders

var<workgroup> best_order: atomic<u32>;
var<private> best: f32;

fn slices_of_row() -> u32 {
    return (COLUMNS + SLICE - 1u) / SLICE;
}

// Find the best logit of a row, for logit_weight(). All lanes call it, once.
fn find_best(row: u32, lane: u32) {
    if lane == 0u {
        atomicStore(&best_order, 0u);
    }
    workgroupBarrier();
    for (var slice = lane; slice < slices_of_row(); slice += LANES) {
        atomicMax(&best_order, t_best[row * slices_of_row() + slice]);
    }
    workgroupBarrier();
    let found = atomicLoad(&best_order);
    best = bitcast<f32>(select(~found, found & 0x7fffffffu, found >= 0x80000000u));
}

fn logit_bits(row: u32, column: u32) -> u32 {
    return t_in[row * COLUMNS + column];
}

fn logit_order(row: u32, column: u32) -> u32 {
    return order(logit_bits(row, column));
}

fn logit_weight(row: u32, column: u32) -> u32 {
    let bits = logit_bits(row, column);
    if bits == 0xff800000u {
        return 0u;
    }
    return weight_of(best, bitcast<f32>(bits));
}
