// The result in a buffer of 16-bit floats, [ids, K], eight to a store of 16 bytes, where the weight
// is one part of the matrix: rows of other parts are left alone.
//
// Needs: is_of_part, floats_to_halves, index_of, embed_dim.
// Defines: store_eight.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // [ids][K / 8], eight halves each

fn store_eight(place: vec2<u32>, k8: u32, first: vec4<f32>, second: vec4<f32>) {
    if is_of_part(place) {
        let halves = vec4<u32>(floats_to_halves(first), floats_to_halves(second));
        t_out[index_of(place) * (embed_dim() / 8u) + k8] = halves;
    }
}
