// The flat grid in units of 8 columns, which are 16 bytes of float16.

struct Octet {
    first: vec4<f32>,
    second: vec4<f32>,
}

fn value_at(unit: u32) -> Octet {
    let position = unit / (embed_dim() / 8u);
    let id = load_index(place_of(position));
    let quad = unit % (embed_dim() / 8u) * 2u;
    return Octet(embed_quad(id, quad), embed_quad(id, quad + 1u));
}

fn store_at(unit: u32, value: Octet) {
    let position = unit / (embed_dim() / 8u);
    store_octet(place_of(position), unit % (embed_dim() / 8u), value.first, value.second);
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let units = ids_in_all() * (embed_dim() / 8u);
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
