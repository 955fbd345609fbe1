// The weight as blocks of 8 rows × 4 columns (see weight/blocks_buffer.wgsl) in a texture of signed
// integers, K/4 texels wide and ⌈V / 8⌉ high: block (n8, k4) is texel (k4, n8).
//
// Defines: load_weight_block, load_weight_quad.

@group(0) @binding(2) var t_weight: texture_2d<i32>;  // K/4 × ⌈V / 8⌉ blocks

fn load_weight_block(n8: u32, k4: u32) -> vec4<u32> {
    return bitcast<vec4<u32>>(textureLoad(t_weight, vec2<u32>(k4, n8), 0));
}

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let nibbles = load_weight_block(row >> 3u, k4)[row & 3u] >> (row & 4u);
    let values = (vec4<u32>(nibbles) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}
