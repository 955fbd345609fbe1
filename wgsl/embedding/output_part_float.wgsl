// The result in a buffer of 32-bit floats, [ids, K], where the weight is one part of the matrix:
// rows of other parts are left alone.
//
// Needs: is_of_part, out_sizes, embed_dim.
// Defines: store_quad.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [ids][K / 4]

fn store_quad(place: vec2<u32>, k4: u32, value: vec4<f32>) {
    if is_of_part(place) {
        let position = place.y * u32(out_sizes.y) + place.x;
        t_out[position * (embed_dim() / 4u) + k4] = value;
    }
}
