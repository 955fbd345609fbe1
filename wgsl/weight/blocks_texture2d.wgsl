// Weight as blocks of 8 rows × 4 columns (see blocks_buffer.wgsl), texel (k4, n8) of a
// K/4 × ceil(V/8) signed-integer texture.

@group(0) @binding(2) var t_weight: texture_2d<i32>;

fn load_weight_block(n8: u32, k4: u32) -> vec4<u32> {
    return bitcast<vec4<u32>>(textureLoad(t_weight, vec2<u32>(k4, n8), 0));
}

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let nibbles = load_weight_block(row >> 3u, k4)[row & 3u] >> (row & 4u);
    let values = (vec4<u32>(nibbles) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}
