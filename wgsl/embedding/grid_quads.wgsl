// The flat grid in units of 4 columns, which are 16 bytes of float32 or a texel.

const UNIT = 4u;

alias Value = vec4<f32>;

fn value_at(unit: u32) -> Value {
    let position = unit / (embed_dim() / UNIT);
    return embed_quad(load_index(place_of(position)), unit % (embed_dim() / UNIT));
}

fn store_at(unit: u32, value: Value) {
    let position = unit / (embed_dim() / UNIT);
    store_quad(place_of(position), unit % (embed_dim() / UNIT), value);
}
