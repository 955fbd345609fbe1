// x is normalized (RMSNorm). Whoever wrote x has multiplied it by the gain, and has left sums of the
// squares of what it was before; the reciprocal of their root is a factor of every output.
//
// In range: sums are below SQUARES; places in workgroup memory are below INVOCATIONS and 16.
//
// Needs: INVOCATIONS, embed_dim.
// Defines: fetch_squares, put_squares, fold_squares, x_factor.

override SQUARES: u32;  // how many sums of squares there are
override EPSILON: u32;  // bits of the float that is added to the mean of the squares

@group(0) @binding(6) var<storage, read> t_squares: array<f32>;  // [SQUARES]

var<workgroup> lane_squares: array<f32, INVOCATIONS>;
var<workgroup> folded_squares: array<f32, 16>;

fn fetch_squares(lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < SQUARES; i += INVOCATIONS) {
        sum += t_squares[i];
    }
    return sum;
}

fn put_squares(lane: u32, value: f32) {
    lane_squares[lane] = value;
}

fn fold_squares(lane: u32) {
    for (var place = lane; place < 16u; place += INVOCATIONS) {
        var sum = 0.0;
        for (var i = place; i < INVOCATIONS; i += 16u) {
            sum += lane_squares[i];
        }
        folded_squares[place] = sum;
    }
}

fn x_factor() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 16u; i++) {
        sum += folded_squares[i];
    }
    return inverseSqrt(sum / f32(embed_dim()) + bitcast<f32>(EPSILON));
}
