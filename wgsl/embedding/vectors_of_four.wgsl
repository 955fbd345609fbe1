// A vector of the result is 4 columns: 16 bytes of float32, or a texel.
//
// Needs: embed_dim, embed_quad, load_index, place_of, store_quad.
// Defines: VECTOR, value_at, store_at.

const VECTOR = 4u;

alias Value = vec4<f32>;

fn value_at(vector: u32) -> Value {
    let position = vector / (embed_dim() / VECTOR);
    return embed_quad(load_index(place_of(position)), vector % (embed_dim() / VECTOR));
}

fn store_at(vector: u32, value: Value) {
    let position = vector / (embed_dim() / VECTOR);
    store_quad(place_of(position), vector % (embed_dim() / VECTOR), value);
}
