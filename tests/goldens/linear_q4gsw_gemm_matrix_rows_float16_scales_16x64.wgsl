// ---- linear/matrix_units/extensions.wgsl

// What a kernel on the GPU's matrix units needs beyond core WGSL, as Dawn offers it. Directives
// come first in a module, so this is its first piece.
//
// A unit multiplies 16 × 16 halves by 16 × 16 halves and adds the products to 16 × 16 floats; the
// work and the matrices are spread over the SUBGROUP invocations of a subgroup. Dawn asks that all
// of a subgroup give the same place in memory. Its analysis takes a subgroup's number for something
// that may vary, so that diagnostic is turned off.
//
// Defines: SIDE, SUBGROUP, XMatrix, WeightMatrix, SumMatrix.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);

const SIDE = 16u;
const SUBGROUP = 32u;

alias XMatrix = subgroup_matrix_left<f16, 16, 16>;
alias WeightMatrix = subgroup_matrix_right<f16, 16, 16>;
alias SumMatrix = subgroup_matrix_result<f32, 16, 16>;

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

// ---- weight/rows_wide.wgsl

// The weight as rows of K/2 bytes in the linear convention, read 16 bytes at a time: nibble i of
// component c of chunk k32 is column 32·k32 + 8·c + i.
//
// Assumes: K % 32 == 0, so that every row starts at a multiple of 16 bytes.
// In range: callers keep the row below V and the chunk below K / 32.
//
// Needs: embed_dim.
// Defines: load_weight_chunk.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 32], 32 columns each

fn load_weight_chunk(row: u32, k32: u32) -> vec4<u32> {
    return t_weight[row * (embed_dim() / 32u) + k32];
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

// ---- linear/matrix_units/tile_16x64.wgsl

// The tile for up to 32 rows of x: a subgroup computes 16 rows × 64 outputs.
//
// Needs: SumMatrix, load_x, load_weight, SIDE, PITCH, Place, store_sum.
// Defines: SUMS_M, SUMS_N, Sums, accumulate, store_sums.

const SUMS_M = 1u;
const SUMS_N = 4u;

struct Sums {
    s00: SumMatrix, s01: SumMatrix, s02: SumMatrix, s03: SumMatrix,
}

// Add the products of 16 columns: x is at `x_at`, its next 16 rows `x_pitch` further on, the weight
// at `weight_at` of the tile.
fn accumulate(sums: ptr<function, Sums>, x_at: u32, x_pitch: u32, weight_at: u32) {
    let x0 = load_x(x_at);
    let w0 = load_weight(weight_at);
    let w1 = load_weight(weight_at + SIDE * PITCH);
    let w2 = load_weight(weight_at + 2u * SIDE * PITCH);
    let w3 = load_weight(weight_at + 3u * SIDE * PITCH);
    (*sums).s00 = subgroupMatrixMultiplyAccumulate(x0, w0, (*sums).s00);
    (*sums).s01 = subgroupMatrixMultiplyAccumulate(x0, w1, (*sums).s01);
    (*sums).s02 = subgroupMatrixMultiplyAccumulate(x0, w2, (*sums).s02);
    (*sums).s03 = subgroupMatrixMultiplyAccumulate(x0, w3, (*sums).s03);
}

fn store_sums(sums: ptr<function, Sums>, place: Place) {
    store_sum((*sums).s00, place, 0u, 0u);
    store_sum((*sums).s01, place, 0u, 1u);
    store_sum((*sums).s02, place, 0u, 2u);
    store_sum((*sums).s03, place, 0u, 3u);
}

// ---- linear/matrix_units/gemm.wgsl

// y = x · Wᵀ + bias for many rows of x on matrix units: half-precision factors, 32-bit sums.
//
// x comes as halves in tiles of 16 × 16, each row scaled by a power of two of its own
// (halve_x.wgsl). A workgroup of four subgroups computes TILE_M rows of x × 128 outputs. The piece
// of the tile says what one subgroup does, spelled out matrix by matrix: matrices in an array that
// loops index are kept in memory, 7 times slower on an H200.
//
// The weight is dequantized into workgroup memory 64 columns at a time, once for all rows of the
// tile; x is read where it lies, from the cache. The sums go through workgroup memory, a matrix at
// a time, to be scaled back and stored row by row, so that M, V and the alignment of a row are
// arbitrary. More than 24 KiB of workgroup memory would leave an H200 room for one workgroup
// instead of two, and take half as long again.
//
// Grid: M' / TILE_M · ⌈V / 128⌉ workgroups, folded over x and y. Those that differ only in their
// rows of x are neighbours, so that the weight comes from the cache for all but the first.
// Assumes: x is padded with zeros to M' rows, a multiple of TILE_M, and to a multiple of 64
// columns.
// In range: rows of x are below M' by the tile; steps of the weight are clamped by its pieces; an
// output is stored only where its row is below V and its row of x below M.
//
// Needs: SIDE, SUMS_M, load_scale, XMatrix, WeightMatrix, SumMatrix, load_bias, vocab, SUBGROUP,
// result_at, SUMS_N, embed_dim, Sums, fetch_weight, stage_weight, accumulate, store_sums.
// Defines: PITCH, Place, scale_pair, low_pair, high_pair, stage_eight, load_x, load_weight,
// store_sum, main.

override SUBGROUPS_M: u32 = 4u;  // of the four subgroups, those along the rows of x; the others lie along the outputs
override TILE_M: u32 = SIDE * SUMS_M * SUBGROUPS_M;  // rows of x of a tile: leave it as it is

const TILE_N = 128u;
const DEPTH = 64u;  // columns staged at a time
const PITCH = 72u;  // DEPTH + 8, so that neighbouring rows begin in different banks
const OUT_PITCH = 20u;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [M][RESULT_ROW]
@group(0) @binding(1) var<storage, read> t_x: array<f16>;  // [M' / 16][K' / 16][16][16]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', the exponent of the weight, 0
@group(0) @binding(6) var<storage, read> t_x_scales: array<f32>;  // [M'], the inverse of each row's power of two

var<workgroup> weight_tile: array<f16, TILE_N * PITCH>;
var<workgroup> out_tile: array<f32, 4u * SIDE * OUT_PITCH>;
var<workgroup> x_factors: array<f32, 128>;

// Where a subgroup's sums belong: the first row and output of the workgroup, and the subgroup's own
// within the tile.
struct Place {
    first_m: u32,
    first_n: u32,
    m_at: u32,
    n_at: u32,
    subgroup: u32,
    lane: u32,
}

// Return 2^exponent, for exponents of normal floats.
fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(exponent + 127) << 23u);
}

// Return a scale times the power of two that brings the largest of the weight below 2^12.
fn scale_pair(row: u32, group: u32) -> vec2<f16> {
    return vec2<f16>(f16(load_scale(row, group) * power_of_two(bitcast<i32>(sizes.z))));
}

// Return (n − 8) of the nibbles at bits 0 and 16, exactly: or'ed into 1024 they make 1024 + n.
fn low_pair(bits: u32) -> vec2<f16> {
    return bitcast<vec2<f16>>((bits & 0x000F000Fu) | 0x64006400u) - vec2<f16>(1032.0h);
}

// Return (n − 8) of the nibbles at bits 4 and 20, exactly: 1024 + 16 n, times 1/16, less 72.
fn high_pair(bits: u32) -> vec2<f16> {
    let shifted = bitcast<vec2<f16>>((bits & 0x00F000F0u) | 0x64006400u);
    return fma(shifted, vec2<f16>(0.0625h), vec2<f16>(-72.0h));
}

// Store eight halves, which come in pairs, at `at` and after it.
fn stage_eight(at: u32, a: vec2<f16>, b: vec2<f16>, c: vec2<f16>, d: vec2<f16>) {
    weight_tile[at] = a.x;
    weight_tile[at + 1u] = a.y;
    weight_tile[at + 2u] = b.x;
    weight_tile[at + 3u] = b.y;
    weight_tile[at + 4u] = c.x;
    weight_tile[at + 5u] = c.y;
    weight_tile[at + 6u] = d.x;
    weight_tile[at + 7u] = d.y;
}

fn load_x(at: u32) -> XMatrix {
    return subgroupMatrixLoad<XMatrix, row_major>(&t_x, at, SIDE);
}

fn load_weight(at: u32) -> WeightMatrix {
    return subgroupMatrixLoad<WeightMatrix, col_major>(&weight_tile, at, PITCH);
}

// Store matrix (i, j) of a subgroup's sums.
fn store_sum(sum: SumMatrix, place: Place, i: u32, j: u32) {
    let mine = place.subgroup * (SIDE * OUT_PITCH);
    subgroupMatrixStore<row_major>(&out_tile, mine, sum, OUT_PITCH);
    workgroupBarrier();
    let column = place.lane % SIDE;
    let n = place.first_n + place.n_at + SIDE * j + column;
    let bias = load_bias(min(n, vocab() - 1u));
    let weight_factor = power_of_two(-bitcast<i32>(sizes.z));
    for (var row = place.lane / SIDE; row < SIDE; row += SUBGROUP / SIDE) {
        let m = place.m_at + SIDE * i + row;
        if place.first_m + m < sizes.x && n < vocab() {
            let value = out_tile[mine + row * OUT_PITCH + column] * weight_factor;
            t_out[result_at(place.first_m + m, n)] = fma(value, x_factors[m], bias);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let tiles_m = sizes.y / TILE_M;
    let first_m = flat % tiles_m * TILE_M;
    let first_n = flat / tiles_m * TILE_N;
    let m_at = subgroup % SUBGROUPS_M * (SIDE * SUMS_M);
    let n_at = subgroup / SUBGROUPS_M * (SIDE * SUMS_N);
    if lane < TILE_M {
        x_factors[lane] = t_x_scales[first_m + lane];
    }

    let steps = (embed_dim() + DEPTH - 1u) / DEPTH;
    let x_pitch = steps * (SIDE * DEPTH);
    var x_at = (first_m + m_at) / SIDE * x_pitch;
    let weight_at = n_at * PITCH;
    var sums: Sums;
    var weight = fetch_weight(first_n, 0u, lane);
    for (var step = 0u; step < steps; step++) {
        stage_weight(weight, lane);
        workgroupBarrier();
        weight = fetch_weight(first_n, step + 1u, lane);
        accumulate(&sums, x_at, x_pitch, weight_at);
        accumulate(&sums, x_at + SIDE * SIDE, x_pitch, weight_at + SIDE);
        accumulate(&sums, x_at + 2u * SIDE * SIDE, x_pitch, weight_at + 2u * SIDE);
        accumulate(&sums, x_at + 3u * SIDE * SIDE, x_pitch, weight_at + 3u * SIDE);
        x_at += SIDE * DEPTH;
        workgroupBarrier();
    }
    store_sums(&sums, Place(first_m, first_n, m_at, n_at, subgroup, subgroup_lane));
}

// ---- linear/matrix_units/stage_rows.wgsl

// Stages 64 columns of a tile of the weight from rows: an invocation takes a chunk of 32 columns
// (16 bytes) of two rows that lie 64 apart. A word's columns are stored in the order in which two
// nibbles lie 16 bits apart, 0 4 1 5 2 6 3 7, and so are those of x.
//
// Needs: embed_dim, vocab, group_size, load_weight_chunk, scale_pair, stage_eight, low_pair,
// high_pair, PITCH.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    first: vec4<u32>,
    second: vec4<u32>,
    first_scale: vec2<f16>,
    second_scale: vec2<f16>,
}

// Fetch what an invocation stages of columns 64·step …; past K, the scale is zero.
fn fetch_weight(first_n: u32, step: u32, lane: u32) -> FetchedWeight {
    let chunks = embed_dim() / 32u;
    let row = min(first_n + lane / 2u, vocab() - 1u);
    let next_row = min(first_n + lane / 2u + 64u, vocab() - 1u);
    let wanted = 2u * step + lane % 2u;
    let chunk = min(wanted, chunks - 1u);
    let group = chunk * 32u / group_size();
    let inside = wanted < chunks;
    return FetchedWeight(
        load_weight_chunk(row, chunk),
        load_weight_chunk(next_row, chunk),
        select(vec2<f16>(), scale_pair(row, group), inside),
        select(vec2<f16>(), scale_pair(next_row, group), inside),
    );
}

fn stage_word(at: u32, word: u32, scale: vec2<f16>) {
    let high = word >> 8u;
    stage_eight(
        at,
        low_pair(word) * scale,
        high_pair(word) * scale,
        low_pair(high) * scale,
        high_pair(high) * scale,
    );
}

fn stage_weight(weight: FetchedWeight, lane: u32) {
    let at = lane / 2u * PITCH + lane % 2u * 32u;
    stage_word(at, weight.first.x, weight.first_scale);
    stage_word(at + 8u, weight.first.y, weight.first_scale);
    stage_word(at + 16u, weight.first.z, weight.first_scale);
    stage_word(at + 24u, weight.first.w, weight.first_scale);
    let next = at + 64u * PITCH;
    stage_word(next, weight.second.x, weight.second_scale);
    stage_word(next + 8u, weight.second.y, weight.second_scale);
    stage_word(next + 16u, weight.second.z, weight.second_scale);
    stage_word(next + 24u, weight.second.w, weight.second_scale);
}
