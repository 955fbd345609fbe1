// One id of each row, drawn by their weights from the KEPT best, which come best first.
//
// A workgroup of 256 invocations takes a row, each invocation ⌈KEPT / 256⌉ neighbours. Those that
// make up the share top-p of all, from the best on, take part unless they are below min-p.
//
// Grid: a workgroup for each row, folded over x and y.
// Assumes: KEPT is at most 1024.
// In range: workgroups past the last row do nothing; places are below KEPT.
//
// Needs: rows, weight_of, add_wide, sum_up_to, share_of, sum_of_all, sum_before, at_least,
// least_weight, random_place, answer, NO_ID.
// Defines: main.

override VOCAB: u32;  // ids that a row had
override KEPT: u32;  // entries of a row

const EACH = 4u;  // entries of an invocation, at most

@group(0) @binding(1) var<storage, read> t_in: array<vec2<u32>>;  // [rows][KEPT], bits of a logit and its id

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
    let best = t_in[row * KEPT].x;
    var weights: array<u32, 4>;
    var mass = vec2<u32>(0u, 0u);
    for (var i = 0u; i < EACH; i++) {
        let place = lane * EACH + i;
        weights[i] = 0u;
        if place < KEPT {
            let bits = t_in[row * KEPT + place].x;
            if bits != 0xff800000u {
                weights[i] = weight_of(bitcast<f32>(best), bitcast<f32>(bits));
            }
        }
        mass = add_wide(mass, vec2<u32>(weights[i], 0u));
    }
    sum_up_to(lane, mass);
    let wanted = share_of(sum_of_all());
    var before = sum_before(lane);
    mass = vec2<u32>(0u, 0u);
    for (var i = 0u; i < EACH; i++) {
        let weight = weights[i];
        if at_least(before, wanted) || weight < least_weight() {
            weights[i] = 0u;
        }
        before = add_wide(before, vec2<u32>(weight, 0u));
        mass = add_wide(mass, vec2<u32>(weights[i], 0u));
    }
    let up_to = sum_up_to(lane, mass);
    let total = sum_of_all();
    let place = random_place(row, total);
    if lane == 0u && total.x == 0u && total.y == 0u {
        answer(row, VOCAB, vec2<u32>(0u, NO_ID));
    }
    before = sum_before(lane);
    if at_least(place, up_to) || !at_least(place, before) {
        return;
    }
    for (var i = 0u; i < EACH; i++) {
        before = add_wide(before, vec2<u32>(weights[i], 0u));
        if !at_least(place, before) {
            answer(row, VOCAB, t_in[row * KEPT + lane * EACH + i]);
            return;
        }
    }
}
