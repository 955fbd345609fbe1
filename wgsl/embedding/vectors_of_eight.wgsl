// A vector of the result is 8 columns: 16 bytes of float16.
//
// Needs: embed_dim, load_index, place_of, embed_quad, store_eight.
// Defines: VECTOR, value_at, store_at.

const VECTOR = 8u;

struct Value {
    first: vec4<f32>,
    second: vec4<f32>,
}

fn value_at(vector: u32) -> Value {
    let position = vector / (embed_dim() / VECTOR);
    let id = load_index(place_of(position));
    let quad = vector % (embed_dim() / VECTOR) * 2u;
    return Value(embed_quad(id, quad), embed_quad(id, quad + 1u));
}

fn store_at(vector: u32, value: Value) {
    let position = vector / (embed_dim() / VECTOR);
    store_eight(place_of(position), vector % (embed_dim() / VECTOR), value.first, value.second);
}
