// The product is stored, plus a bias if there is one.
//
// In range: rows are clamped to V − 1, and an output is stored only where its row is below V.
//
// Needs: outputs, vocab, x_factor, INVOCATIONS, result_at, row_sum, load_bias.
// Defines: weight_row, fetch_end, finish.

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [V]

fn weight_row(workgroup: u32, output: u32) -> u32 {
    return min(workgroup * outputs() + output, vocab() - 1u);
}

struct AtEnd {
    nothing: u32,
}

fn fetch_end(workgroup: u32, lane: u32) -> AtEnd {
    return AtEnd(0u);
}

fn finish(workgroup: u32, lane: u32, fetched: AtEnd) {
    let factor = x_factor();
    for (var output = lane; output < outputs(); output += INVOCATIONS) {
        let row = workgroup * outputs() + output;
        if row < vocab() {
            t_out[result_at(0u, row)] = row_sum(output) * factor + load_bias(row);
        }
    }
}
