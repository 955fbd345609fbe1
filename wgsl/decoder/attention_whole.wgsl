// A workgroup has seen every position of its row: its sums are the result.
//
// In range: callers keep the head below HEADS and the quad below HEAD_DIM / 4.
//
// Needs: HEADS, HEAD_DIM, place_of_quad.
// Defines: SLICES, store_part.

const SLICES = 1u;

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][HEADS · HEAD_DIM / 4]

fn store_part(
    row: u32, head: u32, slice: u32, d4: u32, total: vec4<f32>, top: f32, weight_total: f32,
) {
    let width = HEADS * HEAD_DIM / 4u;
    let k4 = head * (HEAD_DIM / 4u) + d4;
    t_out[row * width + place_of_quad(k4, width)] = total / weight_total;
}
