// One id of each row, drawn from the ids that take part by their weights.
//
// A workgroup of 256 invocations finds the slice in which a random place lies, from the weights of
// the slices, then the id in that slice: each invocation adds SLICE / 256 neighbouring weights up,
// and the one that holds the place walks along them.
//
// Grid: a workgroup for each row, folded over x and y.
// Assumes: SLICE is a multiple of 256, and a row has at most 256 slices.
// In range: workgroups past the last row do nothing; lanes past the last slice read none; columns
// are below COLUMNS.
//
// Needs: rows, find_best, find_nucleus, slices_of_row, sum_up_to, sum_of_all, random_place, answer,
// COLUMNS, NO_ID, at_least, sum_before, SLICE, LANES, add_wide, kept_weight, logit_bits.
// Defines: main.

@group(0) @binding(2) var<storage, read> t_masses: array<vec2<u32>>;  // [rows][⌈COLUMNS / SLICE⌉]

var<workgroup> chosen_slice: u32;
var<workgroup> sum_before_slice: vec2<u32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = workgroup.y * grid.x + workgroup.x;
    if row >= rows() {
        return;
    }
    find_best(row, lane);
    find_nucleus(row, lane);
    var mass = vec2<u32>(0u, 0u);
    if lane < slices_of_row() {
        mass = t_masses[row * slices_of_row() + lane];
    }
    if lane == 0u {
        chosen_slice = 0u;
        sum_before_slice = vec2<u32>(0u, 0u);
    }
    var up_to = sum_up_to(lane, mass);
    let total = sum_of_all();
    let place = random_place(row, total);
    if lane == 0u && total.x == 0u && total.y == 0u {
        answer(row, COLUMNS, vec2<u32>(0u, NO_ID));
    }
    if !at_least(place, up_to) && at_least(place, sum_before(lane)) {
        chosen_slice = lane;
        sum_before_slice = sum_before(lane);
    }
    workgroupBarrier();

    let first = chosen_slice * SLICE + lane * (SLICE / LANES);
    let end = min(COLUMNS, first + SLICE / LANES);
    mass = vec2<u32>(0u, 0u);
    for (var column = first; column < end; column++) {
        mass = add_wide(mass, vec2<u32>(kept_weight(row, column), 0u));
    }
    up_to = add_wide(sum_before_slice, sum_up_to(lane, mass));
    var before = add_wide(sum_before_slice, sum_before(lane));
    if at_least(place, up_to) || !at_least(place, before) {
        return;
    }
    for (var column = first; column < end; column++) {
        before = add_wide(before, vec2<u32>(kept_weight(row, column), 0u));
        if !at_least(place, before) {
            answer(row, COLUMNS, vec2<u32>(logit_bits(row, column), column));
            return;
        }
    }
}
