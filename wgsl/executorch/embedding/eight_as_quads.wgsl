// Eight columns of the result as two stores of four, which are 16 bytes of float32 or a texel each.
//
// Needs: store_quad.
// Defines: store_eight.

fn store_eight(place: vec2<u32>, k8: u32, first: vec4<f32>, second: vec4<f32>) {
    store_quad(place, 2u * k8, first);
    store_quad(place, 2u * k8 + 1u, second);
}
