// Eight values as two stores, where four are 16 bytes or a texel.

fn store_octet(place: vec2<u32>, k8: u32, first: vec4<f32>, second: vec4<f32>) {
    store_quad(place, 2u * k8, first);
    store_quad(place, 2u * k8 + 1u, second);
}
