// The first of the largest entries of each slice of each row, as numpy's argmax finds it.
//
// A workgroup of 256 reduces SLICE entries to one: each lane walks its own, 256 apart, and the
// lanes meet in workgroup memory.  Slices are flat, those of a row neighbours; workgroups are folded
// over x and y.  Run again on what it left (of_candidates.wgsl), it ends with one entry a row.
//
// In range: rows past the last do nothing; entry_at() reads none past COLUMNS; a lane's place is below
// LANES.

override SLICE: u32 = 1024u;

const LANES = 256u;

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // rows, ...

var<workgroup> best: array<vec2<u32>, 256>;  // rank and column

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
        t_out[flat] = entry_at(row, best[0].y);
    }
}
