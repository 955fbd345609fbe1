// A chunk of 32 columns of a row, read quad by quad: for layouts, such as blocks, in which the
// quads of a row do not lie side by side.
//
// Needs: load_weight_quad.
// Defines: load_chunk_values.

fn load_chunk_values(row: u32, k32: u32) -> array<vec4<f32>, 8> {
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
