// x is normalized (RMSNorm) as by prologue_norm.wgsl; a subgroup adds its sums up by itself.
//
// Assumes: what fold_subgroup.wgsl assumes.
// In range: sums are below SQUARES; places in workgroup memory are below INVOCATIONS / SUBGROUP, which
// is at most 64 because subgroups have 4 lanes or more.
//
// Needs: INVOCATIONS, SUBGROUP, embed_dim.
// Defines: fetch_squares, put_squares, fold_squares, x_factor.

override SQUARES: u32;  // how many sums of squares there are
override EPSILON: u32;  // bits of the float that is added to the mean of the squares

@group(0) @binding(6) var<storage, read> t_squares: array<f32>;  // [SQUARES]

var<workgroup> subgroup_squares: array<f32, 64>;  // as many as there are subgroups

fn fetch_squares(lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < SQUARES; i += INVOCATIONS) {
        sum += t_squares[i];
    }
    return sum;
}

fn put_squares(lane: u32, value: f32) {
    let sum = subgroupAdd(value);
    if lane % SUBGROUP == 0u {
        subgroup_squares[lane / SUBGROUP] = sum;
    }
}

fn fold_squares(lane: u32) {}

fn x_factor() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < INVOCATIONS / SUBGROUP; i++) {
        sum += subgroup_squares[i];
    }
    return inverseSqrt(sum / f32(embed_dim()) + bitcast<f32>(EPSILON));
}
