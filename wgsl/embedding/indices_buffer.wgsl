// Ids in a buffer, flat. A place is (index along the ids' last dimension, index over their other
// dimensions).
//
// Needs: out_sizes.
// Defines: load_index.

@group(0) @binding(1) var<storage, read> t_indices: array<i32>;  // [ids]

fn load_index(place: vec2<u32>) -> i32 {
    return t_indices[place.y * u32(out_sizes.y) + place.x];
}
