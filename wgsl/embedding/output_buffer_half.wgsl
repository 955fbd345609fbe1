// Result in a buffer of 16-bit floats, [ids, K], two to a word.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;

fn store_quad(place: vec2<u32>, k4: u32, value: vec4<f32>) {
    let position = place.y * u32(out_sizes.y) + place.x;
    t_out[position * (embed_dim() / 4u) + k4] = floats_to_halves(value);
}
