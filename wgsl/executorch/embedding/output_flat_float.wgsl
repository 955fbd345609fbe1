// The result in a buffer of 32-bit floats, its quads in one flat order.
//
// Defines: store_quad.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [ids][K / 4]

fn store_quad(quad: u32, value: vec4<f32>) {
    t_out[quad] = value;
}
