// The first KEPT entries of each slice of each row, in order.
//
// A workgroup of 256 sorts SLICE entries, a power of two, in workgroup memory (bitonic sort: in
// rounds of doubling length, runs that are sorted in opposite directions become one run) and keeps
// the first KEPT.  Slices are flat, those of a row neighbours; workgroups are folded over x and y.
// Run again on what it left (of_candidates.wgsl), it ends with KEPT entries a row.
// Assumes KEPT at most SLICE, SLICE at most 2048: 16 KiB of workgroup memory.
//
// In range: rows past the last do nothing; entry_at() reads none past COLUMNS; places are below SLICE,
// of which KEPT is at most all.

override SLICE: u32 = 1024u;
override KEPT: u32 = 1u;

const LANES = 256u;

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // rows, ...

var<workgroup> sorted: array<vec2<u32>, SLICE>;  // rank and column

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let parts = (COLUMNS + SLICE - 1u) / SLICE;
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / parts;
    if row >= sizes.x {
        return;
    }
    let first = flat % parts * SLICE;

    for (var i = lane; i < SLICE; i += LANES) {
        sorted[i] = vec2<u32>(rank(entry_at(row, first + i)), first + i);
    }
    for (var run = 2u; run <= SLICE; run *= 2u) {
        for (var apart = run / 2u; apart > 0u; apart /= 2u) {
            workgroupBarrier();
            for (var pair = lane; pair < SLICE / 2u; pair += LANES) {
                let at = 2u * pair - pair % apart;
                let one = sorted[at];
                let other = sorted[at + apart];
                if comes_first(other, one) == ((at & run) == 0u) {
                    sorted[at] = other;
                    sorted[at + apart] = one;
                }
            }
        }
    }
    workgroupBarrier();
    for (var i = lane; i < KEPT; i += LANES) {
        t_out[flat * KEPT + i] = entry_at(row, sorted[i].y);
    }
}
