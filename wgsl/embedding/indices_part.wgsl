// Ids in a buffer, flat, where the weight is one part of the matrix: a row of the part is its id
// less that of the part's first row. Ids of other parts are not in 0 … V − 1.
//
// Needs: out_sizes, is_known.
// Defines: load_index, is_of_part.

@group(0) @binding(1) var<storage, read> t_indices: array<i32>;  // [ids]
@group(0) @binding(5) var<uniform> part: vec4<i32>;  // the id of its first row, 0, 0, 0

fn load_index(place: vec2<u32>) -> i32 {
    return t_indices[place.y * u32(out_sizes.y) + place.x] - part.x;
}

fn is_of_part(place: vec2<u32>) -> bool {
    return is_known(load_index(place));
}
