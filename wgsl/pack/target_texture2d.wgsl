// Blocks into a K/4 × ceil(V/8) texture, one texel each.

@group(0) @binding(0) var t_out: texture_storage_2d<rgba32sint, write>;

fn store_block(n8: u32, k4: u32, block: vec4<u32>) {
    textureStore(t_out, vec2<u32>(k4, n8), bitcast<vec4<i32>>(block));
}
