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

// ---- linear/common/integers_order_rows.wgsl

// The order of integers of x for a weight in rows: of eight columns, the even ones, then the odd
// ones, as `word & 0x0F0F0F0F` and `(word >> 4) & 0x0F0F0F0F` take the nibbles of a word.
//
// Defines: first_columns, second_columns, ScaleWords, scale_words_of.

fn first_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.xz, high.xz);
}

fn second_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.yw, high.yw);
}

// The scale of a chunk, and the offset of its sum.
alias ScaleWords = vec2<u32>;

fn scale_words_of(scale: f32, first_half: i32, second_half: i32) -> ScaleWords {
    return ScaleWords(bitcast<u32>(scale), bitcast<u32>(first_half + second_half));
}

// ---- linear/common/quantize.wgsl

// Activations as integers: a chunk of 32 columns of x becomes scale · a, with a rounded to 8 ·
// PLANES bits.
//
// scale = max |x| / LEVELS over the chunk. So |x − scale · a| ≤ scale · (1/2 + 2^-7): half a step,
// and the roundings of 1 / scale and of the product. With two planes a = 256 · high + low, both
// signed bytes. The kernels multiply a with nibbles u in place of u − 8; an offset of −8 · Σa, kept
// for each half of the chunk, puts that right. A chunk whose |x| are all below 1e-30 becomes zero.
//
// Four bytes make a word: the first or the second columns (integers_order_*.wgsl) of eight
// neighbouring columns, which are a word of the weight. With two planes, vector w holds the two
// words of columns 8·w … in the low plane and then in the high plane; with one plane, vector h
// holds the words of columns 16·h ….
//
// In range: callers pass the first vector of a chunk that x has.
//
// Needs: t_x, first_columns, second_columns, store_vector, store_scale, scale_words_of.
// Defines: PLANES, quantize.

override PLANES: u32 = 2u;  // bytes of an integer: 1 or 2

fn bytes(values: vec4<i32>) -> u32 {
    let low = bitcast<vec4<u32>>(values) & vec4<u32>(0xFFu);
    return low.x | (low.y << 8u) | (low.z << 16u) | (low.w << 24u);
}

fn high_bytes(values: vec4<i32>) -> u32 {
    return bytes((values + 128) >> vec4<u32>(8u));
}

fn both_planes(first: vec4<i32>, second: vec4<i32>) -> vec4<u32> {
    return vec4<u32>(bytes(first), bytes(second), high_bytes(first), high_bytes(second));
}

fn largest(values: vec4<f32>) -> f32 {
    let sizes_of = abs(values);
    return max(max(sizes_of.x, sizes_of.y), max(sizes_of.z, sizes_of.w));
}

fn rounded(values: vec4<f32>, steps: f32) -> vec4<i32> {
    return vec4<i32>(round(values * steps));
}

fn sum_of(values: vec4<i32>) -> i32 {
    return values.x + values.y + values.z + values.w;
}

// Quantize the chunk that starts at vector `at` of x, and store it for (row, chunk).
fn quantize(at: u32, row: u32, chunk: u32) {
    let x0 = t_x[at];
    let x1 = t_x[at + 1u];
    let x2 = t_x[at + 2u];
    let x3 = t_x[at + 3u];
    let x4 = t_x[at + 4u];
    let x5 = t_x[at + 5u];
    let x6 = t_x[at + 6u];
    let x7 = t_x[at + 7u];
    let top = max(
        max(max(largest(x0), largest(x1)), max(largest(x2), largest(x3))),
        max(max(largest(x4), largest(x5)), max(largest(x6), largest(x7))),
    );
    let levels = select(127.0, 32512.0, PLANES == 2u);
    let is_zero = top < 1e-30;
    let scale = select(top / levels, 0.0, is_zero);
    let steps = select(levels / top, 0.0, is_zero);

    let a0 = rounded(first_columns(x0, x1), steps);
    let b0 = rounded(second_columns(x0, x1), steps);
    let a1 = rounded(first_columns(x2, x3), steps);
    let b1 = rounded(second_columns(x2, x3), steps);
    let a2 = rounded(first_columns(x4, x5), steps);
    let b2 = rounded(second_columns(x4, x5), steps);
    let a3 = rounded(first_columns(x6, x7), steps);
    let b3 = rounded(second_columns(x6, x7), steps);
    if PLANES == 2u {
        store_vector(row, 0u, chunk, both_planes(a0, b0));
        store_vector(row, 1u, chunk, both_planes(a1, b1));
        store_vector(row, 2u, chunk, both_planes(a2, b2));
        store_vector(row, 3u, chunk, both_planes(a3, b3));
    } else {
        store_vector(row, 0u, chunk, vec4<u32>(bytes(a0), bytes(b0), bytes(a1), bytes(b1)));
        store_vector(row, 1u, chunk, vec4<u32>(bytes(a2), bytes(b2), bytes(a3), bytes(b3)));
    }
    let first_half = -8 * sum_of(a0 + b0 + a1 + b1);
    let second_half = -8 * sum_of(a2 + b2 + a3 + b3);
    store_scale(row, chunk, scale_words_of(scale, first_half, second_half));
}

// ---- linear/gemv_integers/quantize_x.wgsl

// x [M, K] to integers [M'][2 · PLANES][K / 32] and their scales [M'][K / 32]; M' is M rounded up
// to the rows that a workgroup of the product takes, and rows past M repeat the last.
//
// One invocation quantizes a chunk of 32 columns (linear/common/quantize.wgsl).
//
// Grid: ⌈M' · K / 32 / 64⌉ workgroups of 64 invocations, folded over x and y; invocations run along
// the chunks of a row first.
// In range: chunks past the last do nothing, and rows are clamped to M − 1.
//
// Needs: ScaleWords, PLANES, embed_dim, quantize.
// Defines: t_x, store_vector, store_scale, main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // [M'][2 · PLANES][K / 32]
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0
@group(0) @binding(6) var<storage, read_write> t_out_scales: array<ScaleWords>;  // [M'][K / 32], scale and offsets

fn store_vector(row: u32, v: u32, chunk: u32, words: vec4<u32>) {
    t_out[(row * 2u * PLANES + v) * (embed_dim() / 32u) + chunk] = words;
}

fn store_scale(row: u32, chunk: u32, words: ScaleWords) {
    t_out_scales[row * (embed_dim() / 32u) + chunk] = words;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunks = embed_dim() / 32u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    let row = flat / chunks;
    if row < sizes.y {
        let m = min(row, sizes.x - 1u);
        quantize((m * chunks + flat % chunks) * 8u, row, flat % chunks);
    }
}
