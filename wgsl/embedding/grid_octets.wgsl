// The flat grid in units of 8 columns, which are 16 bytes of float16.

const UNIT = 8u;

struct Value {
    first: vec4<f32>,
    second: vec4<f32>,
}

fn value_at(unit: u32) -> Value {
    let position = unit / (embed_dim() / UNIT);
    let id = load_index(place_of(position));
    let quad = unit % (embed_dim() / UNIT) * 2u;
    return Value(embed_quad(id, quad), embed_quad(id, quad + 1u));
}

fn store_at(unit: u32, value: Value) {
    let position = unit / (embed_dim() / UNIT);
    store_octet(place_of(position), unit % (embed_dim() / UNIT), value.first, value.second);
}
