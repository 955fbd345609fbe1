// ---- shape/overrides.wgsl

// The shape of the matrix as pipeline constants, so that the compiler turns divisions by K and G
// into shifts and multiplications.
//
// Defines: VOCAB, embed_dim, group_size, vocab.

override EMBED_DIM: u32;  // K
override GROUP_SIZE: u32;  // G
override VOCAB: u32;  // V

fn embed_dim() -> u32 {
    return EMBED_DIM;
}

fn group_size() -> u32 {
    return GROUP_SIZE;
}

fn vocab() -> u32 {
    return VOCAB;
}

// ---- decoder/two_halves_native.wgsl

// Two half-precision numbers of a word, by the built-in function. This piece is only for devices on
// which probe/halves.wgsl found that it keeps subnormals.
//
// Defines: two_halves.

fn two_halves(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}

// ---- decoder/pairs.wgsl

// The scale and the offset of each 32 columns of a row: a value is scale · q + offset, with q from 0.
//
// In range: callers keep the row below V and the chunk below K / 32.
//
// Needs: two_halves, embed_dim.
// Defines: load_pair.

@group(0) @binding(3) var<storage, read> t_pairs: array<u32>;  // [V][K / 32] scale and offset, halves

fn load_pair(row: u32, chunk: u32) -> vec2<f32> {
    return two_halves(t_pairs[row * (embed_dim() / 32u) + chunk]);
}

// ---- decoder/eight_affine4.wgsl

// Eight neighbouring columns of a row of a weight in 4 bits with an offset: scale · q + offset, rounded
// once, because a product of 4 and 11 bits is exact.
//
// In range: callers keep the row below V and the eight below K / 8.
//
// Needs: embed_dim, load_pair.
// Defines: Eight, load_eight, first_quad, second_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<u32>;  // [V][K / 8], eight columns each

struct Eight {
    word: u32,
    pair: vec2<f32>,  // scale and offset
}

fn load_eight(row: u32, k8: u32) -> Eight {
    return Eight(t_weight[row * (embed_dim() / 8u) + k8], load_pair(row, k8 / 4u));
}

fn four_nibbles(word: u32, pair: vec2<f32>) -> vec4<f32> {
    let nibbles = (vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(0xFu);
    return fma(vec4<f32>(nibbles), vec4<f32>(pair.x), vec4<f32>(pair.y));
}

fn first_quad(eight: Eight) -> vec4<f32> {
    return four_nibbles(eight.word, eight.pair);
}

fn second_quad(eight: Eight) -> vec4<f32> {
    return four_nibbles(eight.word >> 16u, eight.pair);
}

// ---- linear/common/bias_none.wgsl

// No bias.
//
// Defines: load_bias.

fn load_bias(row: u32) -> f32 {
    return 0.0;
}

// ---- linear/common/result.wgsl

// Where the outputs of a product belong: in rows of V.
//
// A weight may be one part of a larger matrix. Its outputs are then some columns of a wider result,
// which is bound where the first of them lies.
//
// In range: callers keep the row of x below M and the output below V, which is at most RESULT_ROW.
//
// Needs: VOCAB.
// Defines: result_at.

override RESULT_ROW: u32 = VOCAB;  // outputs in a row of the result: those of all parts of the matrix

fn result_at(m: u32, n: u32) -> u32 {
    return m * RESULT_ROW + n;
}

// ---- decoder/gemm_lanes.wgsl

// y = x · Wᵀ + bias for many rows of x, in float32, on a device that runs on the processor: such a
// device loads for one invocation after the other, and has no memory that is nearer than its cache.
//
// An invocation computes 8 rows of x × 4 outputs. It has 32 columns of these outputs' weight in
// registers, and multiplies them with one row of x after the other; invocations of a subgroup need the
// same columns of x, so each loads one of their 8 quads, and gets the others from its neighbours.
//
// Grid: ⌈M / 8⌉ · ⌈V / 32⌉ workgroups of 8 invocations, folded over x and y; those that differ only in
// their rows of x are neighbours.
// Assumes: K % 32 == 0; subgroups have 8 lanes or more, which follow one another in the order of the
// invocations' indices (probe/subgroups.wgsl).
// In range: rows of x are clamped to M − 1 and outputs to V − 1, and an output is stored only where both
// are below M and V.
//
// Needs: vocab, load_eight, first_quad, second_quad, embed_dim, result_at, load_bias.
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [M][RESULT_ROW]
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0

// 32 columns of an output's weight, or of a row of x.
struct Columns {
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
}

// The same of an invocation's four outputs.
struct Weights {
    first: Columns,
    second: Columns,
    third: Columns,
    fourth: Columns,
}

fn weight_columns(output: u32, chunk: u32) -> Columns {
    let row = min(output, vocab() - 1u);
    let a = load_eight(row, 4u * chunk);
    let b = load_eight(row, 4u * chunk + 1u);
    let c = load_eight(row, 4u * chunk + 2u);
    let d = load_eight(row, 4u * chunk + 3u);
    return Columns(
        first_quad(a), second_quad(a), first_quad(b), second_quad(b),
        first_quad(c), second_quad(c), first_quad(d), second_quad(d),
    );
}

fn x_columns(m: u32, chunk: u32, lane: u32) -> Columns {
    let own = t_x[min(m, sizes.x - 1u) * (embed_dim() / 4u) + chunk * 8u + lane];
    return Columns(
        subgroupShuffle(own, 0u), subgroupShuffle(own, 1u),
        subgroupShuffle(own, 2u), subgroupShuffle(own, 3u),
        subgroupShuffle(own, 4u), subgroupShuffle(own, 5u),
        subgroupShuffle(own, 6u), subgroupShuffle(own, 7u),
    );
}

// Return sum + the four products of two quads.
fn add_quad(w: vec4<f32>, x: vec4<f32>, sum: f32) -> f32 {
    return fma(w.w, x.w, fma(w.z, x.z, fma(w.y, x.y, fma(w.x, x.x, sum))));
}

// Two sums, so that no addition waits for more than 15 others.
fn dot_columns(w: Columns, x: Columns) -> f32 {
    let first = add_quad(w.d, x.d, add_quad(w.c, x.c, add_quad(w.b, x.b, add_quad(w.a, x.a, 0.0))));
    return first + add_quad(w.h, x.h, add_quad(w.g, x.g, add_quad(w.f, x.f, add_quad(w.e, x.e, 0.0))));
}

fn dot_row(w: Weights, m: u32, chunk: u32, lane: u32) -> vec4<f32> {
    let x = x_columns(m, chunk, lane);
    return vec4<f32>(
        dot_columns(w.first, x), dot_columns(w.second, x),
        dot_columns(w.third, x), dot_columns(w.fourth, x),
    );
}

fn store_row(m: u32, output: u32, sums: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if m < sizes.x && output + i < vocab() {
            t_out[result_at(m, output + i)] = sums[i] + load_bias(output + i);
        }
    }
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let tiles_m = sizes.y / 8u;
    let m = flat % tiles_m * 8u;
    let first = flat / tiles_m * 32u;
    if m >= sizes.x || first >= vocab() {
        return;
    }
    let output = first + lane * 4u;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0);
    var s5 = vec4<f32>(0.0);
    var s6 = vec4<f32>(0.0);
    var s7 = vec4<f32>(0.0);
    for (var chunk = 0u; chunk < embed_dim() / 32u; chunk++) {
        let w = Weights(
            weight_columns(output, chunk), weight_columns(output + 1u, chunk),
            weight_columns(output + 2u, chunk), weight_columns(output + 3u, chunk),
        );
        s0 += dot_row(w, m, chunk, lane);
        s1 += dot_row(w, m + 1u, chunk, lane);
        s2 += dot_row(w, m + 2u, chunk, lane);
        s3 += dot_row(w, m + 3u, chunk, lane);
        s4 += dot_row(w, m + 4u, chunk, lane);
        s5 += dot_row(w, m + 5u, chunk, lane);
        s6 += dot_row(w, m + 6u, chunk, lane);
        s7 += dot_row(w, m + 7u, chunk, lane);
    }
    store_row(m, output, s0);
    store_row(m + 1u, output, s1);
    store_row(m + 2u, output, s2);
    store_row(m + 3u, output, s3);
    store_row(m + 4u, output, s4);
    store_row(m + 5u, output, s5);
    store_row(m + 6u, output, s6);
    store_row(m + 7u, output, s7);
}
