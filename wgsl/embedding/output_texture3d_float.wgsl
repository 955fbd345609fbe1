// The result in a texture of 32-bit floats: texel (k4, place).
//
// Defines: store_quad.

@group(0) @binding(0) var t_out: texture_storage_3d<rgba32float, write>;  // K/4 × w × c · h

fn store_quad(place: vec2<u32>, k4: u32, value: vec4<f32>) {
    textureStore(t_out, vec3<u32>(k4, place), value);
}
