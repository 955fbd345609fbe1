// Four values of the embedding of one id: out[place, 4·k4 … 4·k4 + 3] = (u − 8) · scale.
//
// The product is rounded once, so the result is the same bits on every device.  An id outside
// 0 … V − 1 reads row 0 and yields zeros: nothing outside the weight is ever read.

fn embed_quad(id: i32, k4: u32) -> vec4<f32> {
    let known = id >= 0 && u32(id) < vocab();
    let row = select(0u, u32(id), known);
    let scale = load_scale(row, k4 * 4u / group_size());
    return select(vec4<f32>(0.0), load_weight_quad(row, k4) * scale, known);
}
