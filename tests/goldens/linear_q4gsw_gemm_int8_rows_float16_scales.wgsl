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

// ---- linear/gemm_integers/gemm.wgsl

// y = x · Wᵀ + bias for many rows of x as 8-bit integers (quantize_columns.wgsl). Their products
// with the nibbles are exact integers.
//
// A workgroup computes a tile (linear/common/gemm_tile.wgsl). It stages a chunk of 32 columns of x
// and of the nibbles, a byte each, at a time in workgroup memory, four columns to a word, and
// fetches the next chunk into registers before it computes that one. A chunk's integer sum is then
// scaled and added.
//
// Grid: M' / TILE_M · ⌈V / 64⌉ workgroups, folded over x and y. Those that differ only in their
// rows of x are neighbours, so that the weight comes from the cache for all but the first.
// Assumes: K % 32 == 0 and G % 32 == 0; TILE_M is 64 or 128; a workgroup has 40 · TILE_M + 2304
// bytes of memory.
// In range: chunks are clamped to the last, and rows of x are below M' by the tile; places in the
// tiles follow from the invocation's index alone.
//
// Needs: TILE_M, TILE_N, embed_dim, sizes, vocab, load_scale, group_size, Sums, fetch_weight,
// stage_weight, store_sums.
// Defines: WORDS, weight_tile, main.

const WORDS = 8u;  // of four columns, in a chunk

@group(0) @binding(1) var<storage, read> t_x: array<vec4<u32>>;  // [K / 4][M' / 4], a word of four columns for each of four rows
@group(0) @binding(6) var<storage, read> t_x_scales: array<vec2<u32>>;  // [K / 32][M'], scale and offset

// A vector holds a word of four neighbouring rows.
var<workgroup> x_tile: array<vec4<u32>, WORDS * TILE_M / 4u>;  // [WORDS][TILE_M / 4]
var<workgroup> weight_tile: array<vec4<u32>, WORDS * TILE_N / 4u>;  // [WORDS][TILE_N / 4]
var<workgroup> x_scales: array<vec2<u32>, TILE_M>;
var<workgroup> weight_scales: array<vec4<f32>, TILE_N / 4u>;

// Integer sums, arranged as gemm_tile.wgsl's.
struct Counts {
    left0: vec4<i32>, right0: vec4<i32>,
    left1: vec4<i32>, right1: vec4<i32>,
    left2: vec4<i32>, right2: vec4<i32>,
    left3: vec4<i32>, right3: vec4<i32>,
    left4: vec4<i32>, right4: vec4<i32>,
    left5: vec4<i32>, right5: vec4<i32>,
    left6: vec4<i32>, right6: vec4<i32>,
    left7: vec4<i32>, right7: vec4<i32>,
}

struct FetchedX {
    a: vec4<u32>,
    b: vec4<u32>,
    scale: vec2<u32>,
}

fn fetch_x(first_m: u32, chunk: u32, lane: u32) -> FetchedX {
    let last = embed_dim() / 32u - 1u;
    let word = min(chunk, last) * WORDS + lane / (TILE_M / 4u);
    let at = word * (sizes.y / 4u) + first_m / 4u + lane % (TILE_M / 4u);
    return FetchedX(
        t_x[at], t_x[at + 4u * (sizes.y / 4u)], t_x_scales[min(chunk, last) * sizes.y + first_m + lane],
    );
}

fn stage_x(fetched: FetchedX, lane: u32) {
    x_tile[lane] = fetched.a;
    x_tile[lane + TILE_M] = fetched.b;
    x_scales[lane] = fetched.scale;
}

fn fetch_weight_scale(first_n: u32, chunk: u32, lane: u32) -> f32 {
    let row = min(first_n + lane % TILE_N, vocab() - 1u);
    return load_scale(row, min(chunk, embed_dim() / 32u - 1u) * 32u / group_size());
}

fn stage_weight_scale(scale: f32, lane: u32) {
    if lane < TILE_N {
        weight_scales[lane / 4u][lane % 4u] = scale;
    }
}

fn dot_four(words: vec4<u32>, x: u32, sums: vec4<i32>) -> vec4<i32> {
    return vec4<i32>(
        sums.x + dot4I8Packed(words.x, x),
        sums.y + dot4I8Packed(words.y, x),
        sums.z + dot4I8Packed(words.z, x),
        sums.w + dot4I8Packed(words.w, x),
    );
}

// Add word k of the staged chunk: four columns of 8 rows of x and 8 of the weight.
fn accumulate(counts: ptr<function, Counts>, k: u32, m_at: u32, n_at: u32) {
    let a = x_tile[k * (TILE_M / 4u) + m_at];
    let b = x_tile[k * (TILE_M / 4u) + TILE_M / 8u + m_at];
    let w = weight_tile[k * (TILE_N / 4u) + n_at];
    let v = weight_tile[k * (TILE_N / 4u) + TILE_N / 8u + n_at];
    (*counts).left0 = dot_four(w, a.x, (*counts).left0);
    (*counts).right0 = dot_four(v, a.x, (*counts).right0);
    (*counts).left1 = dot_four(w, a.y, (*counts).left1);
    (*counts).right1 = dot_four(v, a.y, (*counts).right1);
    (*counts).left2 = dot_four(w, a.z, (*counts).left2);
    (*counts).right2 = dot_four(v, a.z, (*counts).right2);
    (*counts).left3 = dot_four(w, a.w, (*counts).left3);
    (*counts).right3 = dot_four(v, a.w, (*counts).right3);
    (*counts).left4 = dot_four(w, b.x, (*counts).left4);
    (*counts).right4 = dot_four(v, b.x, (*counts).right4);
    (*counts).left5 = dot_four(w, b.y, (*counts).left5);
    (*counts).right5 = dot_four(v, b.y, (*counts).right5);
    (*counts).left6 = dot_four(w, b.z, (*counts).left6);
    (*counts).right6 = dot_four(v, b.z, (*counts).right6);
    (*counts).left7 = dot_four(w, b.w, (*counts).left7);
    (*counts).right7 = dot_four(v, b.w, (*counts).right7);
}

fn scaled(counts: vec4<i32>, scales: vec4<f32>, scale_of_x: f32, sums: vec4<f32>) -> vec4<f32> {
    // The scale of x first: the product of the two scales may be subnormal where this is not.
    return fma(vec4<f32>(counts) * scale_of_x, scales, sums);
}

fn x_scale(m: u32) -> f32 {
    return bitcast<f32>(x_scales[m].x);
}

fn x_offset(m: u32) -> vec4<i32> {
    return vec4<i32>(bitcast<i32>(x_scales[m].y));
}

// Add the staged chunk: sums += scales · integer sums.
fn add_chunk(sums: ptr<function, Sums>, m_at: u32, n_at: u32) {
    let m = 4u * m_at;
    let far = TILE_M / 2u + m;
    var counts: Counts;
    counts.left0 = x_offset(m);
    counts.left1 = x_offset(m + 1u);
    counts.left2 = x_offset(m + 2u);
    counts.left3 = x_offset(m + 3u);
    counts.left4 = x_offset(far);
    counts.left5 = x_offset(far + 1u);
    counts.left6 = x_offset(far + 2u);
    counts.left7 = x_offset(far + 3u);
    counts.right0 = counts.left0;
    counts.right1 = counts.left1;
    counts.right2 = counts.left2;
    counts.right3 = counts.left3;
    counts.right4 = counts.left4;
    counts.right5 = counts.left5;
    counts.right6 = counts.left6;
    counts.right7 = counts.left7;
    accumulate(&counts, 0u, m_at, n_at);
    accumulate(&counts, 1u, m_at, n_at);
    accumulate(&counts, 2u, m_at, n_at);
    accumulate(&counts, 3u, m_at, n_at);
    accumulate(&counts, 4u, m_at, n_at);
    accumulate(&counts, 5u, m_at, n_at);
    accumulate(&counts, 6u, m_at, n_at);
    accumulate(&counts, 7u, m_at, n_at);
    let left = weight_scales[n_at];
    let right = weight_scales[TILE_N / 8u + n_at];
    (*sums).left0 = scaled(counts.left0, left, x_scale(m), (*sums).left0);
    (*sums).right0 = scaled(counts.right0, right, x_scale(m), (*sums).right0);
    (*sums).left1 = scaled(counts.left1, left, x_scale(m + 1u), (*sums).left1);
    (*sums).right1 = scaled(counts.right1, right, x_scale(m + 1u), (*sums).right1);
    (*sums).left2 = scaled(counts.left2, left, x_scale(m + 2u), (*sums).left2);
    (*sums).right2 = scaled(counts.right2, right, x_scale(m + 2u), (*sums).right2);
    (*sums).left3 = scaled(counts.left3, left, x_scale(m + 3u), (*sums).left3);
    (*sums).right3 = scaled(counts.right3, right, x_scale(m + 3u), (*sums).right3);
    (*sums).left4 = scaled(counts.left4, left, x_scale(far), (*sums).left4);
    (*sums).right4 = scaled(counts.right4, right, x_scale(far), (*sums).right4);
    (*sums).left5 = scaled(counts.left5, left, x_scale(far + 1u), (*sums).left5);
    (*sums).right5 = scaled(counts.right5, right, x_scale(far + 1u), (*sums).right5);
    (*sums).left6 = scaled(counts.left6, left, x_scale(far + 2u), (*sums).left6);
    (*sums).right6 = scaled(counts.right6, right, x_scale(far + 2u), (*sums).right6);
    (*sums).left7 = scaled(counts.left7, left, x_scale(far + 3u), (*sums).left7);
    (*sums).right7 = scaled(counts.right7, right, x_scale(far + 3u), (*sums).right7);
}

@compute @workgroup_size(TILE_M)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let tiles_m = sizes.y / TILE_M;
    let first_m = flat % tiles_m * TILE_M;
    let first_n = flat / tiles_m * TILE_N;
    let m_at = lane / (TILE_N / 8u);
    let n_at = lane % (TILE_N / 8u);

    var sums: Sums;
    var x = fetch_x(first_m, 0u, lane);
    var weight = fetch_weight(first_n, 0u, lane);
    var scale = fetch_weight_scale(first_n, 0u, lane);
    for (var chunk = 0u; chunk < embed_dim() / 32u; chunk++) {
        stage_x(x, lane);
        stage_weight(weight, lane);
        stage_weight_scale(scale, lane);
        workgroupBarrier();
        x = fetch_x(first_m, chunk + 1u, lane);
        weight = fetch_weight(first_n, chunk + 1u, lane);
        scale = fetch_weight_scale(first_n, chunk + 1u, lane);
        add_chunk(&sums, m_at, n_at);
        workgroupBarrier();
    }
    store_sums(sums, first_m, first_n, 0u, lane);
}

// ---- linear/gemm_integers/stage_rows.wgsl

// Stages a chunk of 32 columns of a tile of the weight from rows: 256 words of 8 columns of a row,
// two or four for each invocation, each split into its even and its odd columns.
//
// In range: rows are clamped to V − 1 and chunks to the last.
//
// Needs: TILE_N, vocab, load_weight_word, embed_dim, TILE_M, weight_tile.
// Defines: fetch_weight, stage_weight.

fn fetch_word(first_n: u32, chunk: u32, i: u32) -> u32 {
    let row = min(first_n + i % TILE_N, vocab() - 1u);
    return load_weight_word(row, min(chunk, embed_dim() / 32u - 1u) * 4u + i / TILE_N);
}

fn fetch_weight(first_n: u32, chunk: u32, lane: u32) -> vec4<u32> {
    var words = vec4<u32>(0u);
    words.x = fetch_word(first_n, chunk, lane);
    words.y = fetch_word(first_n, chunk, lane + TILE_M);
    if TILE_M < 128u {
        words.z = fetch_word(first_n, chunk, lane + 2u * TILE_M);
        words.w = fetch_word(first_n, chunk, lane + 3u * TILE_M);
    }
    return words;
}

fn stage_word(i: u32, word: u32) {
    let at = i / TILE_N * 2u * (TILE_N / 4u) + i % TILE_N / 4u;
    weight_tile[at][i % 4u] = word & 0x0F0F0F0Fu;
    weight_tile[at + TILE_N / 4u][i % 4u] = (word >> 4u) & 0x0F0F0F0Fu;
}

fn stage_weight(words: vec4<u32>, lane: u32) {
    stage_word(lane, words.x);
    stage_word(lane + TILE_M, words.y);
    if TILE_M < 128u {
        stage_word(lane + 2u * TILE_M, words.z);
        stage_word(lane + 3u * TILE_M, words.w);
    }
}
