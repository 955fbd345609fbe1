// For up to 32 rows of x: a subgroup holds 1 × 8 sums, 16 rows × 128 outputs, so that a workgroup
// has more subgroups to dequantize the weight, which is most of the work here.

const SUMS_M = 1u;
const SUMS_N = 8u;
