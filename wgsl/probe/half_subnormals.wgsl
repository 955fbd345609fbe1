// Does unpack2x16float keep subnormals?  One invocation per word: the two halves as floats.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> t_words: array<u32>;

@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    t_out[lane] = unpack2x16float(t_words[lane]);
}
