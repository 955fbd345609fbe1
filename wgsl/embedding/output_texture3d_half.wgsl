// The result in a texture of 16-bit floats: texel (k4, place).
//
// How a texture store rounds is the driver's choice (an H200's truncates). So the value is rounded
// to half precision before the store, by the same function as in a buffer, and the store is then
// exact. The way back to a float is spelled out in integers: a compiler may remove
// unpack2x16float(pack2x16float(x)) altogether, and an H200's does.
//
// Needs: floats_to_halves.
// Defines: store_quad.

@group(0) @binding(0) var t_out: texture_storage_3d<rgba16float, write>;  // K/4 × w × c · h

// Return the half-precision number in the low 16 bits of each word, as a float.
fn half_values(halves: vec4<u32>) -> vec4<f32> {
    let magnitudes = halves & vec4<u32>(0x7FFFu);
    let normal = (magnitudes << vec4<u32>(13u)) + vec4<u32>(0x38000000u);
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitudes) * 5.9604644775390625e-8);
    let infinite = vec4<u32>(0x7F800000u);
    let finite = select(normal, subnormal, magnitudes < vec4<u32>(0x0400u));
    let bits = select(finite, infinite, magnitudes >= vec4<u32>(0x7C00u));
    return bitcast<vec4<f32>>(bits | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

fn store_quad(place: vec2<u32>, k4: u32, value: vec4<f32>) {
    let pairs = floats_to_halves(value).xxyy;
    let halves = (pairs >> vec4<u32>(0u, 16u, 0u, 16u)) & vec4<u32>(0xFFFFu);
    textureStore(t_out, vec3<u32>(k4, place), half_values(halves));
}
