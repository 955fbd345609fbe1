// A workgroup has seen a slice of the positions: its sums are kept until decoder/merge.wgsl puts the
// slices together.
//
// In range: callers keep the head below HEADS, the slice below SLICES and the quad below HEAD_DIM / 4.
//
// Needs: HEADS, HEAD_DIM.
// Defines: SLICES, store_part.

override SLICES: u32 = 2u;  // parts of the positions

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][HEADS][SLICES][HEAD_DIM / 4]
@group(0) @binding(5) var<storage, read_write> t_out_weights: array<vec2<f32>>;  // [rows][HEADS][SLICES], largest score, sum of weights

fn store_part(
    row: u32, head: u32, slice: u32, d4: u32, total: vec4<f32>, top: f32, weight_total: f32,
) {
    let at = (row * HEADS + head) * SLICES + slice;
    t_out[at * (HEAD_DIM / 4u) + d4] = total;
    if d4 == 0u {
        t_out_weights[at] = vec2<f32>(top, weight_total);
    }
}
