// Ids in a buffer, flat, where the weight is one part of the matrix.
//
// The buffer holds the ids of all parts. They may have any order: a row of the part is its id less
// that of the part's first row, and ids of other parts are then not in 0 … V − 1. Or they stand in
// groups, of which one is this part's: its rows. The result has the same order.
//
// Needs: out_sizes, is_known.
// Defines: index_of, load_index, is_of_part.

override GROUPED: u32 = 0u;  // 1 where ids stand in groups

@group(0) @binding(1) var<storage, read> t_indices: array<i32>;  // [ids of all parts]
@group(0) @binding(5) var<uniform> part: vec4<i32>;  // the id of its first row, the index of its first id, 0, 0

fn index_of(place: vec2<u32>) -> u32 {
    return u32(part.y) + place.y * u32(out_sizes.y) + place.x;
}

fn load_index(place: vec2<u32>) -> i32 {
    return t_indices[index_of(place)] - select(part.x, 0, GROUPED != 0u);
}

fn is_of_part(place: vec2<u32>) -> bool {
    return GROUPED != 0u || is_known(load_index(place));
}
