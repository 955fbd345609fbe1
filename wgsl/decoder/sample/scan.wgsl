// Sums of what the lanes of a workgroup hold.
//
// Needs: add_wide.
// Defines: LANES, sum_up_to, sum_of_all, sum_before.

const LANES = 256u;

var<workgroup> sums: array<vec2<u32>, 256>;

// Return the sum of the values of lanes 0 … lane. All lanes call it.
fn sum_up_to(lane: u32, value: vec2<u32>) -> vec2<u32> {
    workgroupBarrier();
    sums[lane] = value;
    for (var apart = 1u; apart < LANES; apart *= 2u) {
        workgroupBarrier();
        let other = sums[max(lane, apart) - apart];
        workgroupBarrier();
        if lane >= apart {
            sums[lane] = add_wide(sums[lane], other);
        }
    }
    workgroupBarrier();
    return sums[lane];
}

// Return the sum of all values of the last sum_up_to().
fn sum_of_all() -> vec2<u32> {
    return sums[LANES - 1u];
}

// Return the sum of the values of the lanes before this one, in the last sum_up_to().
fn sum_before(lane: u32) -> vec2<u32> {
    if lane == 0u {
        return vec2<u32>(0u, 0u);
    }
    return sums[lane - 1u];
}
