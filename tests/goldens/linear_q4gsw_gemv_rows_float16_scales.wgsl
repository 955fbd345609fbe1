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

// ---- weight/rows.wgsl

// The weight as rows of K/2 bytes in the linear convention: nibble i of 32-bit word k8 is column
// 8·k8 + i. K is a multiple of 8, so every row is a number of whole words.
//
// In range: callers keep the row below V and the word below K / 8.
//
// Needs: embed_dim.
// Defines: load_weight_word, load_weight_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<u32>;  // [V][K / 8], eight columns each

fn load_weight_word(row: u32, k8: u32) -> u32 {
    return t_weight[row * (embed_dim() / 8u) + k8];
}

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let nibbles = load_weight_word(row, k4 >> 1u) >> ((k4 & 1u) * 16u);
    let values = (vec4<u32>(nibbles) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}

// ---- half/native.wgsl

// Half-precision numbers converted by the built-in functions.
//
// WGSL leaves open how these functions round, what they make of values out of range, and whether
// they keep subnormals. This piece is only for devices on which probe/halves.wgsl found that they
// round to nearest even, overflow to infinity and keep subnormals. half/integer.wgsl works
// everywhere.
//
// Defines: half_to_float, half_of_word, floats_to_halves.

// Return the half-precision number in the low 16 bits.
fn half_to_float(half: u32) -> f32 {
    return unpack2x16float(half).x;
}

// Return one of the two half-precision numbers in a word. Choosing after both are converted takes fewer
// instructions than a shift and a mask before.
fn half_of_word(word: u32, index: u32) -> f32 {
    return unpack2x16float(word)[index];
}

// Return four floats rounded to half precision.
fn floats_to_halves(values: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}

// ---- scales/f16.wgsl

// Scales [V, K/G] as 16-bit floats, two to a word.
//
// In range: callers keep the row below V and the group below K / G.
//
// Needs: embed_dim, group_size, half_of_word.
// Defines: t_scales, load_scale.

@group(0) @binding(3) var<storage, read> t_scales: array<u32>;  // [V][K / G] halves, two each

fn load_scale(row: u32, group: u32) -> f32 {
    let at = row * (embed_dim() / group_size()) + group;
    return half_of_word(t_scales[at >> 1u], at & 1u);
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

// ---- linear/common/exact_f32.wgsl

// Nibbles to floats without a conversion instruction, exactly.
//
// A nibble n or'ed at bit p into the mantissa of 2^23 makes the float 2^23 + n·2^p. Subtracting
// 2^23 + 8·2^p leaves (n − 8)·2^p, without rounding. Four nibbles of a word are taken where they
// lie, at p = 0, 4, 8, 12; the powers of two go into the numbers that they are multiplied with,
// also exactly.
//
// Defines: UNSHIFT, shifted_quad, total.

const NIBBLES = vec4<u32>(0x000Fu, 0x00F0u, 0x0F00u, 0xF000u);
const MAGIC = vec4<u32>(0x4B000000u);
const OFFSETS = vec4<f32>(8388616.0, 8388736.0, 8390656.0, 8421376.0);
const UNSHIFT = vec4<f32>(1.0, 0.0625, 0.00390625, 0.000244140625);

// Return (n − 8)·(1, 16, 256, 4096) of the four low nibbles of `word`.
fn shifted_quad(word: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>((vec4<u32>(word) & NIBBLES) | MAGIC) - OFFSETS;
}

fn total(sums: vec4<f32>) -> f32 {
    return (sums.x + sums.y) + (sums.z + sums.w);
}

// ---- linear/gemv/gemv_rows.wgsl

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
