// The tile for more than 64 rows of x: a subgroup computes 32 rows × 128 outputs. That no two
// subgroups of a workgroup read the same rows of x counts for more than square tiles do.
//
// Needs: SumMatrix, load_x, load_weight, SIDE, PITCH, Place, store_sum.
// Defines: SUMS_M, SUMS_N, Sums, accumulate, store_sums.

const SUMS_M = 2u;
const SUMS_N = 8u;

struct Sums {
    s00: SumMatrix, s01: SumMatrix, s02: SumMatrix, s03: SumMatrix,
    s04: SumMatrix, s05: SumMatrix, s06: SumMatrix, s07: SumMatrix,
    s10: SumMatrix, s11: SumMatrix, s12: SumMatrix, s13: SumMatrix,
    s14: SumMatrix, s15: SumMatrix, s16: SumMatrix, s17: SumMatrix,
}

// Add the products of 16 columns: x is at `x_at`, its next 16 rows `x_pitch` further on, the weight
// at `weight_at` of the tile.
fn accumulate(sums: ptr<function, Sums>, x_at: u32, x_pitch: u32, weight_at: u32) {
    let x0 = load_x(x_at);
    let x1 = load_x(x_at + x_pitch);
    let w0 = load_weight(weight_at);
    let w1 = load_weight(weight_at + SIDE * PITCH);
    let w2 = load_weight(weight_at + 2u * SIDE * PITCH);
    let w3 = load_weight(weight_at + 3u * SIDE * PITCH);
    let w4 = load_weight(weight_at + 4u * SIDE * PITCH);
    let w5 = load_weight(weight_at + 5u * SIDE * PITCH);
    let w6 = load_weight(weight_at + 6u * SIDE * PITCH);
    let w7 = load_weight(weight_at + 7u * SIDE * PITCH);
    (*sums).s00 = subgroupMatrixMultiplyAccumulate(x0, w0, (*sums).s00);
    (*sums).s10 = subgroupMatrixMultiplyAccumulate(x1, w0, (*sums).s10);
    (*sums).s01 = subgroupMatrixMultiplyAccumulate(x0, w1, (*sums).s01);
    (*sums).s11 = subgroupMatrixMultiplyAccumulate(x1, w1, (*sums).s11);
    (*sums).s02 = subgroupMatrixMultiplyAccumulate(x0, w2, (*sums).s02);
    (*sums).s12 = subgroupMatrixMultiplyAccumulate(x1, w2, (*sums).s12);
    (*sums).s03 = subgroupMatrixMultiplyAccumulate(x0, w3, (*sums).s03);
    (*sums).s13 = subgroupMatrixMultiplyAccumulate(x1, w3, (*sums).s13);
    (*sums).s04 = subgroupMatrixMultiplyAccumulate(x0, w4, (*sums).s04);
    (*sums).s14 = subgroupMatrixMultiplyAccumulate(x1, w4, (*sums).s14);
    (*sums).s05 = subgroupMatrixMultiplyAccumulate(x0, w5, (*sums).s05);
    (*sums).s15 = subgroupMatrixMultiplyAccumulate(x1, w5, (*sums).s15);
    (*sums).s06 = subgroupMatrixMultiplyAccumulate(x0, w6, (*sums).s06);
    (*sums).s16 = subgroupMatrixMultiplyAccumulate(x1, w6, (*sums).s16);
    (*sums).s07 = subgroupMatrixMultiplyAccumulate(x0, w7, (*sums).s07);
    (*sums).s17 = subgroupMatrixMultiplyAccumulate(x1, w7, (*sums).s17);
}

fn store_sums(sums: ptr<function, Sums>, place: Place) {
    store_sum((*sums).s00, place, 0u, 0u);
    store_sum((*sums).s01, place, 0u, 1u);
    store_sum((*sums).s02, place, 0u, 2u);
    store_sum((*sums).s03, place, 0u, 3u);
    store_sum((*sums).s04, place, 0u, 4u);
    store_sum((*sums).s05, place, 0u, 5u);
    store_sum((*sums).s06, place, 0u, 6u);
    store_sum((*sums).s07, place, 0u, 7u);
    store_sum((*sums).s10, place, 1u, 0u);
    store_sum((*sums).s11, place, 1u, 1u);
    store_sum((*sums).s12, place, 1u, 2u);
    store_sum((*sums).s13, place, 1u, 3u);
    store_sum((*sums).s14, place, 1u, 4u);
    store_sum((*sums).s15, place, 1u, 5u);
    store_sum((*sums).s16, place, 1u, 6u);
    store_sum((*sums).s17, place, 1u, 7u);
}
