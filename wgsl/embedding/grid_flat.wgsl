// The grid of the embedding where the host is free to choose it.
//
// A unit and its value are defined by grid_quads.wgsl or grid_octets.wgsl.
//
// The result is ids × K / UNIT units of UNIT columns in one flat order.  A workgroup of 128 writes 256
// neighbouring units, an invocation the two that lie 128 apart: all its loads come before its
// stores, and neighbouring lanes store neighbouring 16 bytes.  Workgroups are folded over x and y.
// Assumes ids × K/4 < 2^32 − 256.
//
// In range: units are clamped to the last to be read and left out past it to be written; a row is
// one that is_known() allows, or row 0.

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
    let units = u32(out_sizes.y * out_sizes.z * out_sizes.w) * (embed_dim() / UNIT);
    let first = (workgroup.y * grid.x + workgroup.x) * 256u + lane;
    let second = first + 128u;
    let first_value = value_at(min(first, units - 1u));
    let second_value = value_at(min(second, units - 1u));
    if first < units {
        store_at(first, first_value);
    }
    if second < units {
        store_at(second, second_value);
    }
}
