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

// ---- linear/common/gemm_tile.wgsl

// The tile of the GEMMs without matrix units: which outputs a workgroup and an invocation compute,
// and how they are stored.
//
// A workgroup computes a tile of TILE_M rows of x × 64 outputs. An invocation computes 8 × 8 of it
// in registers: rows 4·m_at … and TILE_M / 2 + 4·m_at …, outputs 4·n_at … and 32 + 4·n_at …, four
// each.
//
// Assumes: TILE_M is 32, 64 or 128, a workgroup has as many invocations, and x is padded to M'
// rows, a multiple of TILE_M.
// In range: an output is stored only where its row is below V and its row of x below M; the result
// has room for M rows after those before it.
//
// Needs: vocab, result_at, load_bias.
// Defines: TILE_N, TILE_M, sizes, Sums, store_sums.

const TILE_N = 64u;
override TILE_M: u32 = 128u;  // rows of x of a tile, and invocations of a workgroup

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [M][RESULT_ROW]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, workgroups that share a tile; 0 for one

// Row r of the invocation's 8, its left and its right four outputs.
struct Sums {
    left0: vec4<f32>, right0: vec4<f32>,
    left1: vec4<f32>, right1: vec4<f32>,
    left2: vec4<f32>, right2: vec4<f32>,
    left3: vec4<f32>, right3: vec4<f32>,
    left4: vec4<f32>, right4: vec4<f32>,
    left5: vec4<f32>, right5: vec4<f32>,
    left6: vec4<f32>, right6: vec4<f32>,
    left7: vec4<f32>, right7: vec4<f32>,
}

fn store_four(m: u32, n: u32, values: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if n + i < vocab() {
            t_out[result_at(m, n + i)] = values[i] + load_bias(n + i);
        }
    }
}

fn store_row(m: u32, n: u32, before: u32, left: vec4<f32>, right: vec4<f32>) {
    if m < sizes.x {
        store_four(before + m, n, left);
        store_four(before + m, n + TILE_N / 2u, right);
    }
}

// Store the sums of a tile as rows of the result, which come after `before` others.
fn store_sums(sums: Sums, first_m: u32, first_n: u32, before: u32, lane: u32) {
    let m = first_m + 4u * (lane / (TILE_N / 8u));
    let n = first_n + 4u * (lane % (TILE_N / 8u));
    store_row(m, n, before, sums.left0, sums.right0);
    store_row(m + 1u, n, before, sums.left1, sums.right1);
    store_row(m + 2u, n, before, sums.left2, sums.right2);
    store_row(m + 3u, n, before, sums.left3, sums.right3);
    store_row(m + TILE_M / 2u, n, before, sums.left4, sums.right4);
    store_row(m + TILE_M / 2u + 1u, n, before, sums.left5, sums.right5);
    store_row(m + TILE_M / 2u + 2u, n, before, sums.left6, sums.right6);
    store_row(m + TILE_M / 2u + 3u, n, before, sums.left7, sums.right7);
}

// ---- linear/gemm/gemm.wgsl

// y = x · Wᵀ + bias for many rows of x, which come transposed (transpose_x.wgsl), in float32.
//
// A workgroup computes a tile (linear/common/gemm_tile.wgsl). It stages 16 columns of x and of the
// dequantized weight at a time in workgroup memory, and fetches the next 16 into registers before
// it computes those.
//
// Several workgroups may share the columns of a tile: each multiplies a slice of them, and leaves
// sums of its own ([slices][M][V], without a bias), which somebody adds up. The number of slices is
// no constant: drivers unroll a loop whose few turns they know, and compile it for seconds.
//
// Grid: M' / TILE_M · ⌈V / 64⌉ · slices workgroups, folded over x and y. Those that differ only in
// their rows of x are neighbours, so that the weight comes from the cache for all but the first.
// Assumes: 64 · (TILE_M + 64) bytes of workgroup memory. K need not be a multiple of 16: the weight
// past K is zero, and x past K is read as zero.
// In range: columns of x are clamped to K − 1, and rows are below M' by the tile; places in the
// tiles follow from the invocation's index alone.
//
// Needs: TILE_M, TILE_N, embed_dim, sizes, Sums, fetch_weight, stage_weight, store_sums.
// Defines: DEPTH, weight_tile, main.

const DEPTH = 16u;  // columns staged at a time

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [K][M' / 4], a vector of four rows

// A vector holds a column of four neighbouring rows.
var<workgroup> x_tile: array<vec4<f32>, DEPTH * TILE_M / 4u>;  // [DEPTH][TILE_M / 4]
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * TILE_N / 4u>;  // [DEPTH][TILE_N / 4]

// What an invocation fetches of x: every (DEPTH / 4)th column, four rows.
struct FetchedX {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

fn fetch_column(first_m: u32, column: u32, lane: u32) -> vec4<f32> {
    let m4 = first_m / 4u + lane % (TILE_M / 4u);
    let value = t_x[min(column, embed_dim() - 1u) * (sizes.y / 4u) + m4];
    return select(vec4<f32>(0.0), value, column < embed_dim());
}

fn fetch_x(first_m: u32, k: u32, lane: u32) -> FetchedX {
    let column = k + lane / (TILE_M / 4u);
    return FetchedX(
        fetch_column(first_m, column, lane),
        fetch_column(first_m, column + 4u, lane),
        fetch_column(first_m, column + 8u, lane),
        fetch_column(first_m, column + 12u, lane),
    );
}

fn stage_x(fetched: FetchedX, lane: u32) {
    x_tile[lane] = fetched.a;
    x_tile[lane + TILE_M] = fetched.b;
    x_tile[lane + 2u * TILE_M] = fetched.c;
    x_tile[lane + 3u * TILE_M] = fetched.d;
}

// Add column k of the staged tiles: an outer product of 8 values of x and 8 of the weight.
fn accumulate(sums: ptr<function, Sums>, k: u32, m_at: u32, n_at: u32) {
    let a = x_tile[k * (TILE_M / 4u) + m_at];
    let b = x_tile[k * (TILE_M / 4u) + TILE_M / 8u + m_at];
    let w = weight_tile[k * (TILE_N / 4u) + n_at];
    let v = weight_tile[k * (TILE_N / 4u) + TILE_N / 8u + n_at];
    (*sums).left0 = fma(vec4<f32>(a.x), w, (*sums).left0);
    (*sums).right0 = fma(vec4<f32>(a.x), v, (*sums).right0);
    (*sums).left1 = fma(vec4<f32>(a.y), w, (*sums).left1);
    (*sums).right1 = fma(vec4<f32>(a.y), v, (*sums).right1);
    (*sums).left2 = fma(vec4<f32>(a.z), w, (*sums).left2);
    (*sums).right2 = fma(vec4<f32>(a.z), v, (*sums).right2);
    (*sums).left3 = fma(vec4<f32>(a.w), w, (*sums).left3);
    (*sums).right3 = fma(vec4<f32>(a.w), v, (*sums).right3);
    (*sums).left4 = fma(vec4<f32>(b.x), w, (*sums).left4);
    (*sums).right4 = fma(vec4<f32>(b.x), v, (*sums).right4);
    (*sums).left5 = fma(vec4<f32>(b.y), w, (*sums).left5);
    (*sums).right5 = fma(vec4<f32>(b.y), v, (*sums).right5);
    (*sums).left6 = fma(vec4<f32>(b.z), w, (*sums).left6);
    (*sums).right6 = fma(vec4<f32>(b.z), v, (*sums).right6);
    (*sums).left7 = fma(vec4<f32>(b.w), w, (*sums).left7);
    (*sums).right7 = fma(vec4<f32>(b.w), v, (*sums).right7);
}

@compute @workgroup_size(TILE_M)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let slices = max(sizes.w, 1u);
    let slice = flat % slices;
    let tile = flat / slices;
    let tiles_m = sizes.y / TILE_M;
    let first_m = tile % tiles_m * TILE_M;
    let first_n = tile / tiles_m * TILE_N;
    let columns = (embed_dim() + slices * DEPTH - 1u) / (slices * DEPTH) * DEPTH;
    let first_k = slice * columns;
    let end_k = min(first_k + columns, embed_dim());
    let m_at = lane / (TILE_N / 8u);
    let n_at = lane % (TILE_N / 8u);

    var sums: Sums;
    var x = fetch_x(first_m, first_k, lane);
    var weight = fetch_weight(first_n, first_k, lane);
    for (var k = first_k; k < end_k; k += DEPTH) {
        stage_x(x, lane);
        stage_weight(weight, lane);
        workgroupBarrier();
        x = fetch_x(first_m, k + DEPTH, lane);
        weight = fetch_weight(first_n, k + DEPTH, lane);
        accumulate(&sums, 0u, m_at, n_at);
        accumulate(&sums, 1u, m_at, n_at);
        accumulate(&sums, 2u, m_at, n_at);
        accumulate(&sums, 3u, m_at, n_at);
        accumulate(&sums, 4u, m_at, n_at);
        accumulate(&sums, 5u, m_at, n_at);
        accumulate(&sums, 6u, m_at, n_at);
        accumulate(&sums, 7u, m_at, n_at);
        accumulate(&sums, 8u, m_at, n_at);
        accumulate(&sums, 9u, m_at, n_at);
        accumulate(&sums, 10u, m_at, n_at);
        accumulate(&sums, 11u, m_at, n_at);
        accumulate(&sums, 12u, m_at, n_at);
        accumulate(&sums, 13u, m_at, n_at);
        accumulate(&sums, 14u, m_at, n_at);
        accumulate(&sums, 15u, m_at, n_at);
        workgroupBarrier();
    }
    store_sums(sums, first_m, first_n, slice * sizes.x, lane);
}

// ---- linear/gemm/stage_rows.wgsl

// Stages 16 columns of a tile of the weight from rows: 128 words of 8 columns of a row, one to four
// for each invocation. Neighbouring invocations take neighbouring rows, so that their stores fall
// into different banks of workgroup memory.
//
// In range: rows are clamped to V − 1 and words to the last of a row.
//
// Needs: embed_dim, TILE_N, vocab, load_scale, group_size, load_weight_word, TILE_M, shifted_quad,
// UNSHIFT, weight_tile.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    words: vec4<u32>,
    scales: vec4<f32>,
}

fn fetch_word(first_n: u32, k: u32, i: u32, at: ptr<function, FetchedWeight>, turn: u32) {
    let words = embed_dim() / 8u;
    let row = min(first_n + i % TILE_N, vocab() - 1u);
    let k8 = k / 8u + i / TILE_N;
    let column = min(k8, words - 1u);
    let scale = load_scale(row, column * 8u / group_size());
    (*at).words[turn] = load_weight_word(row, column);
    (*at).scales[turn] = select(0.0, scale, k8 < words);
}

fn fetch_weight(first_n: u32, k: u32, lane: u32) -> FetchedWeight {
    var fetched: FetchedWeight;
    fetch_word(first_n, k, lane, &fetched, 0u);
    if TILE_M < 128u {
        fetch_word(first_n, k, lane + TILE_M, &fetched, 1u);
    }
    if TILE_M < 64u {
        fetch_word(first_n, k, lane + 2u * TILE_M, &fetched, 2u);
        fetch_word(first_n, k, lane + 3u * TILE_M, &fetched, 3u);
    }
    return fetched;
}

fn stage_word(i: u32, word: u32, scale: f32) {
    // Not UNSHIFT * scale first: that is subnormal, and rounded, for a small scale.
    let low = (shifted_quad(word) * UNSHIFT) * scale;
    let high = (shifted_quad(word >> 16u) * UNSHIFT) * scale;
    let at = i / TILE_N * 8u * (TILE_N / 4u) + i % TILE_N / 4u;
    weight_tile[at][i % 4u] = low.x;
    weight_tile[at + TILE_N / 4u][i % 4u] = low.y;
    weight_tile[at + 2u * (TILE_N / 4u)][i % 4u] = low.z;
    weight_tile[at + 3u * (TILE_N / 4u)][i % 4u] = low.w;
    weight_tile[at + 4u * (TILE_N / 4u)][i % 4u] = high.x;
    weight_tile[at + 5u * (TILE_N / 4u)][i % 4u] = high.y;
    weight_tile[at + 6u * (TILE_N / 4u)][i % 4u] = high.z;
    weight_tile[at + 7u * (TILE_N / 4u)][i % 4u] = high.w;
}

fn stage_weight(fetched: FetchedWeight, lane: u32) {
    stage_word(lane, fetched.words.x, fetched.scales.x);
    if TILE_M < 128u {
        stage_word(lane + TILE_M, fetched.words.y, fetched.scales.y);
    }
    if TILE_M < 64u {
        stage_word(lane + 2u * TILE_M, fetched.words.z, fetched.scales.z);
        stage_word(lane + 3u * TILE_M, fetched.words.w, fetched.scales.w);
    }
}
