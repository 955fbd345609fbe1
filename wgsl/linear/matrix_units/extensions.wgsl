// What a kernel on the GPU's matrix units needs beyond the core, as Dawn offers it.  Directives come
// first in a module, so this is the first piece of it.
//
// A unit multiplies 16 × 16 halves by 16 × 16 halves and adds to 16 × 16 floats, the work and the
// matrices spread over the SUBGROUP lanes of a subgroup.  Dawn asks that all of a subgroup give the
// same place in memory; its analysis sees a subgroup's number as something that may vary, so its
// complaint is turned off.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);

const SIDE = 16u;
const SUBGROUP = 32u;

alias XMatrix = subgroup_matrix_left<f16, 16, 16>;
alias WeightMatrix = subgroup_matrix_right<f16, 16, 16>;
alias SumMatrix = subgroup_matrix_result<f32, 16, 16>;
