// The residual stream begins: a row is the embedding of an id, times the model's factor. The weight
// may be a part of the matrix: the first part makes zeros of ids that it does not have, and later
// parts leave them alone.
//
// In range: an id past the vocabulary gives zeros.
//
// Needs: first_position, vocab, load_weight_quad, load_scale, group_size.
// Defines: is_left_alone, start_row, source_quad.

override FACTOR: u32;  // bits of the float that embeddings are multiplied by
override FIRST_ROW: u32 = 0u;  // of the part, in the matrix

@group(0) @binding(9) var<storage, read> t_ids: array<u32>;  // of the whole sequence

// Return the row of the part that a row of the stream is; V or more if it has none.
fn row_of_part(row: u32) -> u32 {
    return t_ids[first_position() + row] - FIRST_ROW;
}

fn is_left_alone(row: u32) -> bool {
    return FIRST_ROW > 0u && row_of_part(row) >= vocab();
}

fn start_row(row: u32, lane: u32) -> f32 {
    return bitcast<f32>(FACTOR);
}

fn source_quad(row: u32, k4: u32, factor: f32) -> vec4<f32> {
    let id = row_of_part(row);
    if id >= vocab() {
        return vec4<f32>(0.0);
    }
    return load_weight_quad(id, k4) * load_scale(id, k4 * 4u / group_size()) * factor;
}
