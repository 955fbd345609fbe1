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
