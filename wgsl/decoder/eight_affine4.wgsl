// Eight neighbouring columns of a row of a weight in 4 bits with an offset: scale · q + offset, rounded
// once, because a product of 4 and 11 bits is exact.
//
// In range: callers keep the row below V and the eight below K / 8.
//
// Needs: embed_dim, load_pair.
// Defines: Eight, load_eight, first_quad, second_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<u32>;  // [V][K / 8], eight columns each

struct Eight {
    word: u32,
    pair: vec2<f32>,  // scale and offset
}

fn load_eight(row: u32, k8: u32) -> Eight {
    return Eight(t_weight[row * (embed_dim() / 8u) + k8], load_pair(row, k8 / 4u));
}

fn four_nibbles(word: u32, pair: vec2<f32>) -> vec4<f32> {
    let nibbles = (vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(0xFu);
    return fma(vec4<f32>(nibbles), vec4<f32>(pair.x), vec4<f32>(pair.y));
}

fn first_quad(eight: Eight) -> vec4<f32> {
    return four_nibbles(eight.word, eight.pair);
}

fn second_quad(eight: Eight) -> vec4<f32> {
    return four_nibbles(eight.word >> 16u, eight.pair);
}
