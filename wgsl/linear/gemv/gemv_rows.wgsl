// y = x · Wᵀ + bias for few rows of x and a weight in rows, for any K and G that are multiples of
// 8.
//
// A team of TEAM invocations computes one output: it shares a row of the weight, a word (8 columns)
// at a time. A workgroup of 128 invocations has 128 / TEAM teams; the sums of a team meet in
// workgroup memory, where the first 128 / TEAM invocations add them up.
//
// Grid: ⌈V / (128 / TEAM)⌉ · M workgroups, folded over x and y. Those that differ only in their row
// of x are neighbours, so that the weight comes from the cache for all but the first.
// Assumes: TEAM is a power of two of at most 128.
// In range: rows past V and words past K / 8 are skipped; rows of x are below M by the grid's
// division.
//
// Needs: embed_dim, vocab, load_weight_word, shifted_quad, UNSHIFT, load_scale, group_size, total,
// result_at, load_bias.
// Defines: main.

override TEAM: u32 = 32u;  // invocations that share a row of the weight

const LANES = 128u;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [M][RESULT_ROW]
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, 0, 0, 0

var<workgroup> slots: array<f32, 128>;

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let teams = LANES / TEAM;
    let flat = workgroup.y * grid.x + workgroup.x;
    let m = flat % sizes.x;
    let first_row = flat / sizes.x * teams;
    let row = first_row + lane / TEAM;
    let words = embed_dim() / 8u;

    var sum = 0.0;
    var k8 = lane % TEAM;
    while k8 < words && row < vocab() {
        let word = load_weight_word(row, k8);
        let x_at = (m * words + k8) * 2u;
        let low = shifted_quad(word) * (t_x[x_at] * UNSHIFT);
        let both = fma(shifted_quad(word >> 16u), t_x[x_at + 1u] * UNSHIFT, low);
        sum = fma(load_scale(row, k8 * 8u / group_size()), total(both), sum);
        k8 += TEAM;
    }
    slots[lane] = sum;
    workgroupBarrier();

    let output = first_row + lane;
    if lane < teams && output < vocab() {
        var result = 0.0;
        for (var i = 0u; i < TEAM; i++) {
            result += slots[lane * TEAM + (i + lane) % TEAM];
        }
        t_out[result_at(m, output)] = result + load_bias(output);
    }
}
