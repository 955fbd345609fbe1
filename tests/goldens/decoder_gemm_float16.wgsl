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

// ---- decoder/eight_halves.wgsl

// Eight neighbouring columns of a row of a weight in half precision.
//
// In range: callers keep the row below V and the eight below K / 8.
//
// Needs: embed_dim, two_halves.
// Defines: Eight, load_eight, first_quad, second_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 8], eight halves each

struct Eight {
    halves: vec4<u32>,
}

fn load_eight(row: u32, k8: u32) -> Eight {
    return Eight(t_weight[row * (embed_dim() / 8u) + k8]);
}

fn first_quad(eight: Eight) -> vec4<f32> {
    return vec4<f32>(two_halves(eight.halves.x), two_halves(eight.halves.y));
}

fn second_quad(eight: Eight) -> vec4<f32> {
    return vec4<f32>(two_halves(eight.halves.z), two_halves(eight.halves.w));
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

// ---- decoder/stage_eights.wgsl

// Stages 16 columns of a tile of a weight: 128 times 8 columns of a row, one to four for each
// invocation. Neighbouring invocations take neighbouring rows, so that their stores fall into different
// banks of workgroup memory.
//
// Assumes: K is a multiple of 16.
// In range: rows are clamped to V − 1 and eights of columns to the last of a row.
//
// Needs: Eight, TILE_N, vocab, load_eight, embed_dim, TILE_M, first_quad, second_quad, weight_tile.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    first: Eight,
    second: Eight,
    third: Eight,
    fourth: Eight,
}

// What is fetched past the last column is never computed with.
fn fetch_eight(first_n: u32, k: u32, i: u32) -> Eight {
    let row = min(first_n + i % TILE_N, vocab() - 1u);
    return load_eight(row, min(k / 8u + i / TILE_N, embed_dim() / 8u - 1u));
}

fn fetch_weight(first_n: u32, k: u32, lane: u32) -> FetchedWeight {
    var fetched: FetchedWeight;
    fetched.first = fetch_eight(first_n, k, lane);
    if TILE_M < 128u {
        fetched.second = fetch_eight(first_n, k, lane + TILE_M);
    }
    if TILE_M < 64u {
        fetched.third = fetch_eight(first_n, k, lane + 2u * TILE_M);
        fetched.fourth = fetch_eight(first_n, k, lane + 3u * TILE_M);
    }
    return fetched;
}

fn stage_eight(i: u32, eight: Eight) {
    let at = i / TILE_N * 8u * (TILE_N / 4u) + i % TILE_N / 4u;
    let first = first_quad(eight);
    let second = second_quad(eight);
    for (var column = 0u; column < 4u; column++) {
        weight_tile[at + column * (TILE_N / 4u)][i % 4u] = first[column];
        weight_tile[at + (column + 4u) * (TILE_N / 4u)][i % 4u] = second[column];
    }
}

fn stage_weight(fetched: FetchedWeight, lane: u32) {
    stage_eight(lane, fetched.first);
    if TILE_M < 128u {
        stage_eight(lane + TILE_M, fetched.second);
    }
    if TILE_M < 64u {
        stage_eight(lane + 2u * TILE_M, fetched.third);
        stage_eight(lane + 3u * TILE_M, fetched.fourth);
    }
}
