// The product is added to the residual stream, and made ready for the product that reads it next:
// multiplied by the gain of that one's norm, in the order of chunks; and each workgroup leaves the sum
// of the squares of its part of the stream (prologue_norm.wgsl).
//
// In range: rows are clamped to V − 1, and an output is stored only where its row is below V; a
// workgroup stores one sum, at its own number.
//
// Needs: INVOCATIONS, outputs, vocab, x_factor, row_sum.
// Defines: weight_row, fetch_end, finish.

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [V], the residual stream
@group(0) @binding(6) var<storage, read_write> t_out_squares: array<f32>;  // one for each workgroup
@group(0) @binding(8) var<storage, read> t_gain: array<f32>;  // [V]
@group(0) @binding(9) var<storage, read_write> t_out_x: array<f32>;  // [8][V / 32] quads

var<workgroup> output_squares: array<f32, INVOCATIONS>;

fn weight_row(workgroup: u32, output: u32) -> u32 {
    return min(workgroup * outputs() + output, vocab() - 1u);
}

struct AtEnd {
    residual: f32,
    gain: f32,
}

fn fetch_end(workgroup: u32, lane: u32) -> AtEnd {
    let row = min(workgroup * outputs() + lane, vocab() - 1u);
    return AtEnd(t_out[row], t_gain[row]);
}

fn finish(workgroup: u32, lane: u32, fetched: AtEnd) {
    let factor = x_factor();
    var squares = 0.0;
    for (var output = lane; output < outputs(); output += INVOCATIONS) {
        let row = workgroup * outputs() + output;
        if row < vocab() {
            var end = fetched;
            if output >= INVOCATIONS {
                end = fetch_end(workgroup, output);
            }
            let value = end.residual + row_sum(output) * factor;
            t_out[row] = value;
            t_out_x[(row % 32u / 4u * (vocab() / 32u) + row / 32u) * 4u + row % 4u] = value * end.gain;
            squares += value * value;
        }
    }
    output_squares[lane] = squares;
    workgroupBarrier();
    if lane == 0u && workgroup * outputs() < vocab() {
        var sum = 0.0;
        for (var i = 0u; i < min(outputs(), INVOCATIONS); i++) {
            sum += output_squares[i];
        }
        t_out_squares[workgroup] = sum;
    }
}
