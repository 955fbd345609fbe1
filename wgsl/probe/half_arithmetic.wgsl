// What half-precision arithmetic makes of nibbles on this device: an invocation unpacks a word of eight.
//
// Grid: one workgroup of 16 invocations, one for each word.
//
// Needs: unpack_first, unpack_second.
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [16][2], even columns and odd ones
@group(0) @binding(1) var<storage, read> t_words: array<u32>;  // [16]

@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    t_out[2u * lane] = unpack_first(t_words[lane]);
    t_out[2u * lane + 1u] = unpack_second(t_words[lane]);
}
