// What the built-in half-precision functions do on this device: one invocation converts a pair of
// halves to floats, and a pair of floats to halves.
//
// Grid: one workgroup of 16 invocations, one for each element of t_pairs.
//
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // float, float, halves, 0
@group(0) @binding(1) var<storage, read> t_pairs: array<vec4<u32>>;  // halves, 0, float, float

@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    let pair = t_pairs[lane];
    let floats = bitcast<vec2<u32>>(unpack2x16float(pair.x));
    t_out[lane] = vec4<u32>(floats, pack2x16float(bitcast<vec2<f32>>(pair.zw)), 0u);
}
