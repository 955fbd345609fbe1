// The residual stream begins: a row is the embedding of an id, times the model's factor.
//
// In range: an id past the vocabulary gives zeros.
//
// Needs: first_position, vocab, load_weight_quad, load_scale, group_size.
// Defines: start_row, source_quad.

override FACTOR: u32;  // bits of the float that embeddings are multiplied by

@group(0) @binding(9) var<storage, read> t_ids: array<u32>;  // of the whole sequence

fn start_row(row: u32, lane: u32) -> f32 {
    return bitcast<f32>(FACTOR);
}

fn source_quad(row: u32, k4: u32, factor: f32) -> vec4<f32> {
    let id = t_ids[first_position() + row];
    if id >= vocab() {
        return vec4<f32>(0.0);
    }
    return load_weight_quad(id, k4) * load_scale(id, k4 * 4u / group_size()) * factor;
}
