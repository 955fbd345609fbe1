// The ceiling of float32 arithmetic, and the proof that the clock held.  An invocation keeps 16
// chains of multiply-adds in registers: ROUNDS times 64 multiply-adds, 128 operations a round.

override ROUNDS: u32 = 64u;

@group(0) @binding(0) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let start = vec4<f32>(0.0, 0.25, 0.5, 0.75) + f32(id.x & 255u);
    var a = start;
    var b = start + 1.0;
    var c = start + 2.0;
    var d = start + 3.0;
    let m = vec4<f32>(0.999);
    let n = vec4<f32>(0.001);
    for (var round = 0u; round < ROUNDS; round++) {
        a = a * m + n;
        b = b * m + n;
        c = c * m + n;
        d = d * m + n;
        a = a * m + n;
        b = b * m + n;
        c = c * m + n;
        d = d * m + n;
        a = a * m + n;
        b = b * m + n;
        c = c * m + n;
        d = d * m + n;
        a = a * m + n;
        b = b * m + n;
        c = c * m + n;
        d = d * m + n;
    }
    let all = (a + b) + (c + d);
    sums[id.x] = (all.x + all.y) + (all.z + all.w);
}
