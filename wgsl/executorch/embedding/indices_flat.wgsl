// Ids in a buffer, in one flat order.
//
// Defines: load_index.

@group(0) @binding(1) var<storage, read> t_indices: array<i32>;  // [ids]

fn load_index(position: u32) -> i32 {
    return t_indices[position];
}
