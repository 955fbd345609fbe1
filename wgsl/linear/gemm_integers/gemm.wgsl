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
