// A team is one invocation: its sums are whole.
//
// Assumes: TEAM is 1.
// In range: places follow from the invocation's index alone.
//
// Needs: INVOCATIONS, LANE_ROWS, fold_squares.
// Defines: leave_sums, fold, row_sum.

var<workgroup> slots: array<f32, INVOCATIONS * LANE_ROWS>;  // [outputs]

// Leave an invocation's sums of LANE_ROWS outputs from its first.
fn leave_sums(lane: u32, first: u32, near: vec4<f32>, far: vec4<f32>) {
    slots[first] = near.x;
    if LANE_ROWS > 1u {
        slots[first + 1u] = near.y;
    }
    if LANE_ROWS > 2u {
        slots[first + 2u] = near.z;
        slots[first + 3u] = near.w;
    }
    if LANE_ROWS > 4u {
        slots[first + 4u] = far.x;
        slots[first + 5u] = far.y;
        slots[first + 6u] = far.z;
        slots[first + 7u] = far.w;
    }
}

fn fold(lane: u32) {
    workgroupBarrier();
    fold_squares(lane);
    workgroupBarrier();
}

// Return an output of the workgroup, without the factor of x.
fn row_sum(output: u32) -> f32 {
    return slots[output];
}
