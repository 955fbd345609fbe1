// The sums of a team's invocations meet in workgroup memory, and are added up in two stages of about as
// many each.
//
// Assumes: FOLD divides TEAM and is at least LANE_ROWS.
// In range: places follow from the invocation's index alone.
//
// Needs: INVOCATIONS, LANE_ROWS, TEAM, fold_squares, outputs.
// Defines: leave_sums, fold, row_sum.

override FOLD: u32 = 8u;  // invocations of a team whose sums are added up first

var<workgroup> slots: array<f32, INVOCATIONS * LANE_ROWS + INVOCATIONS>;  // [outputs][TEAM + 1]
var<workgroup> folded: array<f32, INVOCATIONS>;  // [TEAM / FOLD][outputs]

// Leave an invocation's sums of LANE_ROWS outputs from the first of its team.
fn leave_sums(lane: u32, first: u32, near: vec4<f32>, far: vec4<f32>) {
    let at = first * (TEAM + 1u) + lane % TEAM;
    slots[at] = near.x;
    if LANE_ROWS > 1u {
        slots[at + TEAM + 1u] = near.y;
    }
    if LANE_ROWS > 2u {
        slots[at + 2u * (TEAM + 1u)] = near.z;
        slots[at + 3u * (TEAM + 1u)] = near.w;
    }
    if LANE_ROWS > 4u {
        slots[at + 4u * (TEAM + 1u)] = far.x;
        slots[at + 5u * (TEAM + 1u)] = far.y;
        slots[at + 6u * (TEAM + 1u)] = far.z;
        slots[at + 7u * (TEAM + 1u)] = far.w;
    }
}

// Add up what FOLD invocations of a team left.
fn fold(lane: u32) {
    workgroupBarrier();
    fold_squares(lane);
    if lane < outputs() * (TEAM / FOLD) {
        let at = lane % outputs() * (TEAM + 1u) + lane / outputs() * FOLD;
        var sum = 0.0;
        for (var i = 0u; i < FOLD; i++) {
            sum += slots[at + i];
        }
        folded[lane] = sum;
    }
    workgroupBarrier();
}

// Return an output of the workgroup, without the factor of x.
fn row_sum(output: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < TEAM / FOLD; i++) {
        sum += folded[i * outputs() + output];
    }
    return sum;
}
