// Blocks into a texture, K/4 texels wide and ⌈V / 8⌉ high, one texel each.
//
// Defines: store_block.

@group(0) @binding(0) var t_out: texture_storage_2d<rgba32sint, write>;  // K/4 × ⌈V / 8⌉ blocks

fn store_block(n8: u32, k4: u32, block: vec4<u32>) {
    textureStore(t_out, vec2<u32>(k4, n8), bitcast<vec4<i32>>(block));
}
