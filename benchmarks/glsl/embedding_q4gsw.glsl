#version 450 core

// One invocation makes 32 values of one id, one after the other: a nibble, a scale, a store each.

${define_required_extensions(STORAGE, DTYPE)}
${define_required_extensions("buffer", [SCALES_DTYPE])}

#define PRECISION ${PRECISION}
#define T ${buffer_scalar_type(DTYPE)}

${define_active_storage_type(STORAGE)}

layout(std430) buffer;

${layout_declare_tensor(B, "w", "t_out", DTYPE, STORAGE)}
${layout_declare_tensor(B, "r", "t_indices", "int", STORAGE)}
${layout_declare_tensor(B, "r", "t_weight", "int", WEIGHT_STORAGE)}
${layout_declare_tensor(B, "r", "t_scales", SCALES_DTYPE, "buffer")}
${layout_declare_ubo(B, "ivec4", "out_sizes")}

layout(push_constant) uniform PushConstants {
  int group_size;
  int is_linear_weight;
};

layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

int nibble(int row, int k) {
$if IS_LINEAR_WEIGHT:
  $if WEIGHT_STORAGE == "buffer":
    int word = t_weight[((row / 8) * (out_sizes.x / 4) + k / 4) * 4 + row % 4];
  $else:
    int word = texelFetch(t_weight, ivec2(k / 4, row / 8), 0)[row % 4];
  return (word >> (8 * (k % 4) + (row & 4))) & 15;
$else:
  int word = t_weight[row * (out_sizes.x / 8) + k / 8];
  return (word >> (8 * (k % 8 / 2) + 4 * (1 - k % 2))) & 15;
}

void main() {
  ivec3 at = ivec3(gl_GlobalInvocationID);
  if (at.x >= out_sizes.x / 32 || at.y >= out_sizes.y || at.z >= out_sizes.z * out_sizes.w) {
    return;
  }
  int position = at.z * out_sizes.y + at.y;
  int row = t_indices[position];
  for (int i = 0; i < 32; i++) {
    int k = 32 * at.x + i;
    float scale = float(t_scales[row * (out_sizes.x / group_size) + k / group_size]);
    t_out[position * out_sizes.x + k] = T(float(nibble(row, k) - 8) * scale);
  }
}
