// The KEPT best entries of each slice of each row, best first.
//
// A workgroup of 256 invocations sorts a slice of SLICE entries in workgroup memory and keeps the
// first KEPT. It is a bitonic sort: in rounds of doubling span, two neighbouring sequences that are
// sorted in opposite directions become one. Run again on the entries that it left
// (of_candidates.wgsl), the kernel ends with KEPT entries a row.
//
// Grid: rows · ⌈COLUMNS / SLICE⌉ workgroups, those of a row side by side, folded over x and y.
// Assumes: SLICE is a power of two of at most 2048 (16 KiB of workgroup memory), and KEPT is at
// most SLICE.
// In range: workgroups past the last row do nothing; entry_at() reads nothing past COLUMNS; places
// are below SLICE, of which KEPT is at most all.
//
// Needs: COLUMNS, rank, entry_at, comes_first, slot_of, store_entry.
// Defines: sizes, main.

override SLICE: u32 = 1024u;  // entries of which a workgroup keeps KEPT
override KEPT: u32 = 1u;  // entries that are kept

const LANES = 256u;

@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // rows; of logits: the first id, the first slot, the slots of a row

var<workgroup> sorted: array<vec2<u32>, SLICE>;  // rank and column

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

    for (var i = lane; i < SLICE; i += LANES) {
        sorted[i] = vec2<u32>(rank(entry_at(row, first + i)), first + i);
    }
    for (var span = 2u; span <= SLICE; span *= 2u) {
        for (var apart = span / 2u; apart > 0u; apart /= 2u) {
            workgroupBarrier();
            for (var pair = lane; pair < SLICE / 2u; pair += LANES) {
                let at = 2u * pair - pair % apart;
                let one = sorted[at];
                let other = sorted[at + apart];
                if comes_first(other, one) == ((at & span) == 0u) {
                    sorted[at] = other;
                    sorted[at + apart] = one;
                }
            }
        }
    }
    workgroupBarrier();
    let slot = slot_of(row, flat % slices, slices);
    for (var i = lane; i < KEPT; i += LANES) {
        store_entry(slot * KEPT + i, entry_at(row, sorted[i].y));
    }
}
