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
