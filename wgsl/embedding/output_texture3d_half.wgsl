// Result in a texture of 16-bit floats: texel (k4, place).
//
// How a texture store rounds is the driver's choice (some truncate), so the value is rounded to
// half before it, the same way as in a buffer; the store is then exact.

@group(0) @binding(0) var t_out: texture_storage_3d<rgba16float, write>;

fn store_quad(place: vec2<u32>, k4: u32, value: vec4<f32>) {
    let rounded = vec4<f32>(
        unpack2x16float(pack2x16float(value.xy)),
        unpack2x16float(pack2x16float(value.zw)),
    );
    textureStore(t_out, vec3<u32>(k4, place), rounded);
}
