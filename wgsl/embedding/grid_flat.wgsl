// The embedding where the host is free to choose the grid: one invocation writes two vectors of 16
// bytes of the result.
//
// The result is a flat array of ids × K / VECTOR vectors of VECTOR columns (vectors_of_four.wgsl or
// vectors_of_eight.wgsl). A workgroup of 128 invocations writes 256 neighbouring vectors, and an
// invocation the two of them that lie 128 apart: all its loads come before its stores, and
// neighbouring invocations store neighbouring vectors.
//
// Grid: ⌈ids · K / VECTOR / 256⌉ workgroups, folded over x and y.
// Assumes: ids · K / 4 < 2^32 − 256.
// In range: a vector past the last is read as the last and not written; a row is one that
// is_known() allows, or row 0.
//
// Needs: is_known, row_of, load_scale, group_size, embedded, load_weight_quad, embed_dim, VECTOR,
// value_at, store_at.
// Defines: out_sizes, embed_quad, main.

@group(0) @binding(4) var<uniform> out_sizes: vec4<i32>;  // K, then the ids' dimensions, last first

fn embed_quad(id: i32, k4: u32) -> vec4<f32> {
    // is_known() would do alone, but on an H200 the branch that this makes is worth 15 % of a
    // half-precision embedding.
    let known = id >= 0 && is_known(id);
    let row = row_of(id, known);
    let scale = load_scale(row, k4 * 4u / group_size());
    return embedded(known, load_weight_quad(row, k4), scale);
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let vectors = u32(out_sizes.y * out_sizes.z * out_sizes.w) * (embed_dim() / VECTOR);
    let first = (workgroup.y * grid.x + workgroup.x) * 256u + lane;
    let second = first + 128u;
    let first_value = value_at(min(first, vectors - 1u));
    let second_value = value_at(min(second, vectors - 1u));
    if first < vectors {
        store_at(first, first_value);
    }
    if second < vectors {
        store_at(second, second_value);
    }
}
