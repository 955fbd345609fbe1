// Values of the embedding of one id: out[place, k] = (u − 8) · scale.
//
// The product is rounded once, so the result is the same bits on every device.  An id outside
// 0 … V − 1 reads row 0 and yields zeros: nothing outside the weight is ever read.

// A negative id is a large unsigned number, and V < 2^31.
fn is_known(id: i32) -> bool {
    return u32(id) < vocab();
}

fn row_of(id: i32, known: bool) -> u32 {
    return select(0u, u32(id), known);
}

fn embedded(known: bool, weight: vec4<f32>, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(0.0), weight * scale, known);
}
