// The ceiling of float32 arithmetic, and the proof that the clock held.  An invocation keeps 16
// chains of multiply-adds in registers: ROUNDS times 64 multiply-adds, 128 operations a round.
//
// Both factors change at every step: of `a * m + n` with constants, twice in a row, a compiler makes
// one multiply-add.  The values stay between 0 and 1, so that nothing overflows or vanishes.

override ROUNDS: u32 = 64u;

@group(0) @binding(0) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let start = vec4<f32>(0.0, 0.01, 0.02, 0.03) + f32(id.x & 255u) * 1e-3;
    var a = start;
    var b = start + 0.04;
    var c = start + 0.08;
    var d = start + 0.12;
    let n = vec4<f32>(0.125);
    for (var round = 0u; round < ROUNDS; round++) {
        a = a * b + n;
        b = b * c + n;
        c = c * d + n;
        d = d * a + n;
        a = a * b + n;
        b = b * c + n;
        c = c * d + n;
        d = d * a + n;
        a = a * b + n;
        b = b * c + n;
        c = c * d + n;
        d = d * a + n;
        a = a * b + n;
        b = b * c + n;
        c = c * d + n;
        d = d * a + n;
    }
    let all = (a + b) + (c + d);
    sums[id.x] = (all.x + all.y) + (all.z + all.w);
}
