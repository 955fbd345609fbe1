// The grid of the embedding where the host is free to choose it.
//
// The result is ids × K/4 quads in one flat order.  A workgroup of 256 writes 512 neighbouring
// quads, an invocation the two that lie 256 apart: all its loads come before its stores, and
// neighbouring lanes store neighbouring 16 bytes.  Workgroups are folded over x and y.
// Assumes ids × K/4 < 2^32 − 512.

@group(0) @binding(4) var<uniform> out_sizes: vec4<i32>;  // K, then the ids' dimensions, last first

fn embed_quad(id: i32, k4: u32) -> vec4<f32> {
    // is_known() would do alone, but on an H200 the branch that this makes is worth 15 % of a
    // half-precision embedding.
    let known = id >= 0 && is_known(id);
    let row = row_of(id, known);
    let scale = load_scale(row, k4 * 4u / group_size());
    return embedded(known, load_weight_quad(row, k4), scale);
}

fn quad_at(quad: u32) -> vec4<f32> {
    let position = quad / (embed_dim() / 4u);
    return embed_quad(load_index(place_of(position)), quad % (embed_dim() / 4u));
}

fn store_at(quad: u32, value: vec4<f32>) {
    let position = quad / (embed_dim() / 4u);
    store_quad(place_of(position), quad % (embed_dim() / 4u), value);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quads = u32(out_sizes.y * out_sizes.z * out_sizes.w) * (embed_dim() / 4u);
    let first = (workgroup.y * grid.x + workgroup.x) * 512u + lane;
    let second = first + 256u;
    let first_value = quad_at(min(first, quads - 1u));
    let second_value = quad_at(min(second, quads - 1u));
    if first < quads {
        store_at(first, first_value);
    }
    if second < quads {
        store_at(second, second_value);
    }
}
