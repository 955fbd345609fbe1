// Eight neighbouring columns of a row of a weight in 8 bits with an offset: scale · q + offset, rounded
// once, because a product of 8 and 11 bits is exact.
//
// In range: callers keep the row below V and the eight below K / 8.
//
// Needs: embed_dim, load_pair.
// Defines: Eight, load_eight, first_quad, second_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<vec2<u32>>;  // [V][K / 8], eight columns each

struct Eight {
    words: vec2<u32>,
    pair: vec2<f32>,  // scale and offset
}

fn load_eight(row: u32, k8: u32) -> Eight {
    return Eight(t_weight[row * (embed_dim() / 8u) + k8], load_pair(row, k8 / 4u));
}

fn four_bytes(word: u32, pair: vec2<f32>) -> vec4<f32> {
    let bytes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xFFu);
    return fma(vec4<f32>(bytes), vec4<f32>(pair.x), vec4<f32>(pair.y));
}

fn first_quad(eight: Eight) -> vec4<f32> {
    return four_bytes(eight.words.x, eight.pair);
}

fn second_quad(eight: Eight) -> vec4<f32> {
    return four_bytes(eight.words.y, eight.pair);
}
