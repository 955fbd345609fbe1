// The result in a buffer of 32-bit floats, [ids, K], where the weight is one part of the matrix:
// rows of other parts are left alone.
//
// Needs: is_of_part, index_of, embed_dim.
// Defines: store_quad.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [ids][K / 4]

fn store_quad(place: vec2<u32>, k4: u32, value: vec4<f32>) {
    if is_of_part(place) {
        t_out[index_of(place) * (embed_dim() / 4u) + k4] = value;
    }
}
