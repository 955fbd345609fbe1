// The flat grid in units of 4 columns, which are 16 bytes of float32 or a texel.

fn value_at(unit: u32) -> vec4<f32> {
    let position = unit / (embed_dim() / 4u);
    return embed_quad(load_index(place_of(position)), unit % (embed_dim() / 4u));
}

fn store_at(unit: u32, value: vec4<f32>) {
    let position = unit / (embed_dim() / 4u);
    store_quad(place_of(position), unit % (embed_dim() / 4u), value);
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let units = ids_in_all() * (embed_dim() / 4u);
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
