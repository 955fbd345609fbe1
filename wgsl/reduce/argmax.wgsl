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
