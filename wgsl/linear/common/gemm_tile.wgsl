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
