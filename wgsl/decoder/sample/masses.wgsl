// The weight of each slice of a row: of the ids that take part in the draw.
//
// A workgroup of 256 invocations adds a slice of SLICE weights up.
//
// Grid: rows · ⌈COLUMNS / SLICE⌉ workgroups, those of a row side by side, folded over x and y.
// In range: workgroups past the last row do nothing; columns are below COLUMNS.
//
// Needs: slices_of_row, rows, find_best, find_nucleus, COLUMNS, SLICE, LANES, add_wide,
// kept_weight, sum_up_to, sum_of_all.
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;  // [rows][⌈COLUMNS / SLICE⌉]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / slices_of_row();
    if row >= rows() {
        return;
    }
    let slice = flat % slices_of_row();
    find_best(row, lane);
    find_nucleus(row, lane);
    var mine = vec2<u32>(0u, 0u);
    let end = min(COLUMNS, (slice + 1u) * SLICE);
    for (var column = slice * SLICE + lane; column < end; column += LANES) {
        mine = add_wide(mine, vec2<u32>(kept_weight(row, column), 0u));
    }
    sum_up_to(lane, mine);
    if lane == 0u {
        t_out[flat] = sum_of_all();
    }
}
