// 32 columns of a row where its quads lie apart, as they do in blocks.

fn load_weight_run(row: u32, k32: u32) -> array<vec4<f32>, 8> {
    let quad = 8u * k32;
    return array<vec4<f32>, 8>(
        load_weight_quad(row, quad),
        load_weight_quad(row, quad + 1u),
        load_weight_quad(row, quad + 2u),
        load_weight_quad(row, quad + 3u),
        load_weight_quad(row, quad + 4u),
        load_weight_quad(row, quad + 5u),
        load_weight_quad(row, quad + 6u),
        load_weight_quad(row, quad + 7u),
    );
}
