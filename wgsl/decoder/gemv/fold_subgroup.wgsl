// The sums of a team's invocations are added up by exchange between the lanes of subgroups: as long as a
// lane has several sums, it keeps one half of them and gives the other away. What is left of each
// subgroup meets in workgroup memory.
//
// Assumes: subgroups have SUBGROUP lanes, which follow one another in the order of the invocations'
// indices (probe/subgroups.wgsl); SUBGROUP is a power of two, at least LANE_ROWS, and divides TEAM.
// In range: places follow from the invocation's index alone.
//
// Needs: INVOCATIONS, LANE_ROWS, TEAM, fold_squares.
// Defines: SUBGROUP, leave_sums, fold, row_sum.

override SUBGROUP: u32 = 32u;  // lanes of a subgroup

var<workgroup> slots: array<f32, INVOCATIONS * LANE_ROWS / SUBGROUP>;  // [outputs][TEAM / SUBGROUP]

// Leave a subgroup's sums of LANE_ROWS outputs from the first of its team.
fn leave_sums(lane: u32, first: u32, near: vec4<f32>, far: vec4<f32>) {
    var four = near;
    var row = 0u;
    var apart = SUBGROUP / 2u;
    if LANE_ROWS > 4u {
        let upper = (lane & apart) != 0u;
        let given = select(far, near, upper);
        four = select(near, far, upper) + subgroupShuffleXor(given, SUBGROUP / 2u);
        row += select(0u, 4u, upper);
        apart /= 2u;
    }
    var two = four.xy;
    if LANE_ROWS > 2u {
        let upper = (lane & apart) != 0u;
        let given = select(four.zw, four.xy, upper);
        two = select(four.xy, four.zw, upper) + subgroupShuffleXor(given, apart);
        row += select(0u, 2u, upper);
        apart /= 2u;
    }
    var one = two.x;
    if LANE_ROWS > 1u {
        let upper = (lane & apart) != 0u;
        let given = select(two.y, two.x, upper);
        one = select(two.x, two.y, upper) + subgroupShuffleXor(given, apart);
        row += select(0u, 1u, upper);
        apart /= 2u;
    }
    for (var i = 1u; i < SUBGROUP / LANE_ROWS; i *= 2u) {
        one += subgroupShuffleXor(one, i);
    }
    if lane % (SUBGROUP / LANE_ROWS) == 0u {
        slots[(first + row) * (TEAM / SUBGROUP) + lane % TEAM / SUBGROUP] = one;
    }
}

fn fold(lane: u32) {
    workgroupBarrier();
    fold_squares(lane);
}

// Return an output of the workgroup, without the factor of x.
fn row_sum(output: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < TEAM / SUBGROUP; i++) {
        sum += slots[output * (TEAM / SUBGROUP) + i];
    }
    return sum;
}
