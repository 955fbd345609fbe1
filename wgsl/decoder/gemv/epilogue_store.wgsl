// The product is stored, plus a bias if there is one.
//
// In range: rows are clamped to V − 1, and an output is stored only where its row is below V.
//
// Needs: outputs, vocab, totals, load_bias.
// Defines: weight_row, finish.

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [V]

fn weight_row(workgroup: u32, output: u32) -> u32 {
    return min(workgroup * outputs() + output, vocab() - 1u);
}

fn finish(workgroup: u32, lane: u32) {
    let row = workgroup * outputs() + lane;
    if lane < outputs() && row < vocab() {
        t_out[row] = totals[lane] + load_bias(row);
    }
}
