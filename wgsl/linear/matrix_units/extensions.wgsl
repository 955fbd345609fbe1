// What a kernel on the GPU's matrix units needs beyond core WGSL, as Dawn offers it. Directives
// come first in a module, so this is its first piece.
//
// A unit multiplies 16 × 16 halves by 16 × 16 halves and adds the products to 16 × 16 floats; the
// work and the matrices are spread over the SUBGROUP invocations of a subgroup. Dawn asks that all
// of a subgroup give the same place in memory. Its analysis takes a subgroup's number for something
// that may vary, so that diagnostic is turned off.
//
// Defines: SIDE, SUBGROUP, XMatrix, WeightMatrix, SumMatrix.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);

const SIDE = 16u;
const SUBGROUP = 32u;

alias XMatrix = subgroup_matrix_left<f16, 16, 16>;
alias WeightMatrix = subgroup_matrix_right<f16, 16, 16>;
alias SumMatrix = subgroup_matrix_result<f32, 16, 16>;
