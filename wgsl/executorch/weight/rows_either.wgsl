// The weight as rows of K/2 bytes, in the nibble convention that the host names. K is a multiple of
// 8, so every row is a number of whole words.
//
// A nibble n or'ed into the mantissa of 2^23 makes the float 2^23 + n. Subtracting 2^23 + 8 leaves
// n − 8, without rounding and without a conversion.
//
// Needs: embed_dim, params.
// Defines: t_weight, load_weight_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<u32>;  // [V][K / 8], eight columns each

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let word = t_weight[row * (embed_dim() / 8u) + (k4 >> 1u)] >> ((k4 & 1u) * 16u);
    let is_linear = params.is_linear_weight != 0u;
    let shifts = select(vec4<u32>(4u, 0u, 12u, 8u), vec4<u32>(0u, 4u, 8u, 12u), is_linear);
    let nibbles = (vec4<u32>(word) >> shifts) & vec4<u32>(15u);
    return bitcast<vec4<f32>>(nibbles | vec4<u32>(0x4B000000u)) - 8388616.0;
}
