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
