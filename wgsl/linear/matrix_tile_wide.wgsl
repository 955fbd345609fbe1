// For more than 32 rows of x: a subgroup holds 2 × 8 sums, 32 rows × 128 outputs.  That no two
// subgroups of a workgroup read the same rows of x counts for more than square tiles do.

const SUMS_M = 2u;
const SUMS_N = 8u;
