// y = x · Wᵀ + bias for many rows of x, which come transposed (transpose_x.wgsl).
//
// A workgroup computes a tile of TILE_M rows of x × TILE_N outputs, an invocation 8 × 8 of it in
// registers.  16 columns at a time, x and the dequantized weight are staged in workgroup memory;
// `stage_weight` is defined by the piece of the weight's layout.
// Tiles are folded over x and y, the row tile running fastest, so that the weight comes from the
// cache for all but the first.
// Assumes TILE_M and TILE_N multiples of 8, INVOCATIONS up to 256, x padded to whole row tiles, and
// 68 · (TILE_M + TILE_N) bytes of workgroup memory.  K need not be a multiple of 16: the weight
// past K is zero, and x past K is read as zero.

override TILE_M: u32 = 128u;
override TILE_N: u32 = 64u;
override INVOCATIONS: u32 = 128u;  // (TILE_M / 8) · (TILE_N / 8)

const DEPTH = 16u;  // columns staged at a time
const PITCH = 17u;  // one more, so that stores of a column fall into different banks

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [K, M' / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0

// A vector holds a column of four neighbouring rows.
var<workgroup> x_tile: array<array<vec4<f32>, PITCH>, TILE_M / 4u>;
var<workgroup> weight_tile: array<array<vec4<f32>, PITCH>, TILE_N / 4u>;

struct Sums {
    r0: vec4<f32>, s0: vec4<f32>,
    r1: vec4<f32>, s1: vec4<f32>,
    r2: vec4<f32>, s2: vec4<f32>,
    r3: vec4<f32>, s3: vec4<f32>,
    r4: vec4<f32>, s4: vec4<f32>,
    r5: vec4<f32>, s5: vec4<f32>,
    r6: vec4<f32>, s6: vec4<f32>,
    r7: vec4<f32>, s7: vec4<f32>,
}

// Column k of the staged tiles: an outer product of 8 values of x and 8 of the weight.
fn accumulate(sums: ptr<function, Sums>, k: u32, m_at: u32, n_at: u32) {
    let a = x_tile[2u * m_at][k];
    let b = x_tile[2u * m_at + 1u][k];
    let w = weight_tile[n_at][k];
    let v = weight_tile[TILE_N / 8u + n_at][k];
    (*sums).r0 = fma(vec4<f32>(a.x), w, (*sums).r0);
    (*sums).s0 = fma(vec4<f32>(a.x), v, (*sums).s0);
    (*sums).r1 = fma(vec4<f32>(a.y), w, (*sums).r1);
    (*sums).s1 = fma(vec4<f32>(a.y), v, (*sums).s1);
    (*sums).r2 = fma(vec4<f32>(a.z), w, (*sums).r2);
    (*sums).s2 = fma(vec4<f32>(a.z), v, (*sums).s2);
    (*sums).r3 = fma(vec4<f32>(a.w), w, (*sums).r3);
    (*sums).s3 = fma(vec4<f32>(a.w), v, (*sums).s3);
    (*sums).r4 = fma(vec4<f32>(b.x), w, (*sums).r4);
    (*sums).s4 = fma(vec4<f32>(b.x), v, (*sums).s4);
    (*sums).r5 = fma(vec4<f32>(b.y), w, (*sums).r5);
    (*sums).s5 = fma(vec4<f32>(b.y), v, (*sums).s5);
    (*sums).r6 = fma(vec4<f32>(b.z), w, (*sums).r6);
    (*sums).s6 = fma(vec4<f32>(b.z), v, (*sums).s6);
    (*sums).r7 = fma(vec4<f32>(b.w), w, (*sums).r7);
    (*sums).s7 = fma(vec4<f32>(b.w), v, (*sums).s7);
}

// Stage 16 columns of x.
fn stage_x(first_m: u32, k: u32, lane: u32) {
    for (var i = lane; i < DEPTH * (TILE_M / 4u); i += INVOCATIONS) {
        let m4 = i % (TILE_M / 4u);
        let column = k + i / (TILE_M / 4u);
        let value = t_x[min(column, embed_dim() - 1u) * (sizes.y / 4u) + first_m / 4u + m4];
        x_tile[m4][i / (TILE_M / 4u)] = select(vec4<f32>(0.0), value, column < embed_dim());
    }
}

fn store_row(m: u32, n: u32, left: vec4<f32>, right: vec4<f32>) {
    if m >= sizes.x {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        if n + i < vocab() {
            t_out[m * vocab() + n + i] = left[i] + load_bias(n + i);
        }
        if n + TILE_N / 2u + i < vocab() {
            t_out[m * vocab() + n + TILE_N / 2u + i] = right[i] + load_bias(n + TILE_N / 2u + i);
        }
    }
}

@compute @workgroup_size(INVOCATIONS)
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
    for (var k = 0u; k < embed_dim(); k += DEPTH) {
        stage_x(first_m, k, lane);
        stage_weight(first_n, k, lane);
        workgroupBarrier();
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
    let m = first_m + 8u * m_at;
    let n = first_n + 4u * n_at;
    store_row(m, n, sums.r0, sums.s0);
    store_row(m + 1u, n, sums.r1, sums.s1);
    store_row(m + 2u, n, sums.r2, sums.s2);
    store_row(m + 3u, n, sums.r3, sums.s3);
    store_row(m + 4u, n, sums.r4, sums.s4);
    store_row(m + 5u, n, sums.r5, sums.s5);
    store_row(m + 6u, n, sums.r6, sums.s6);
    store_row(m + 7u, n, sums.r7, sums.s7);
}
