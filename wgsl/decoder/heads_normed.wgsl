// Each head of queries and of keys is normalized (RMSNorm) and multiplied by a gain.
//
// In range: columns are below HEAD_DIM / 4, which is at most 64.
//
// Needs: HEAD_DIM.
// Defines: normalize.

override EPSILON: u32;  // bits of the float that is added to the mean of the squares

@group(0) @binding(8) var<storage, read> t_gain: array<vec4<f32>>;  // [2][HEAD_DIM / 4], of queries and of keys

var<workgroup> squares: array<f32, 64>;

fn normalize(value: vec4<f32>, d4: u32, is_key: bool, lane: u32) -> vec4<f32> {
    workgroupBarrier();  // it may be called twice
    if lane < 64u {
        squares[lane] = dot(value, value);
    }
    workgroupBarrier();
    let width = HEAD_DIM / 4u;
    var sum = 0.0;
    for (var i = 0u; i < width; i++) {
        sum += squares[i];
    }
    let scale = inverseSqrt(sum / f32(HEAD_DIM) + bitcast<f32>(EPSILON));
    return value * scale * t_gain[select(0u, width, is_key) + d4];
}
