// The embedding of one id: out[place, k] = (u − 8) · scale.
//
// The product is rounded once, so the result is the same bits on every device. An id outside 0 … V
// − 1 reads row 0 and gives zeros: nothing outside the weight is ever read.
//
// Needs: vocab.
// Defines: is_known, row_of, embedded.

// Tell whether an id is in 0 … V − 1: as V < 2^31, a negative one is too large when unsigned.
fn is_known(id: i32) -> bool {
    return u32(id) < vocab();
}

fn row_of(id: i32, known: bool) -> u32 {
    return select(0u, u32(id), known);
}

fn embedded(known: bool, weight: vec4<f32>, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(0.0), weight * scale, known);
}
