// The gated linear unit: activate(gate) · up. The first half of the weight's rows is the gate, the
// second is up; a team has as many rows of the one as of the other. The result is in the order of
// chunks.
//
// In range: rows are clamped to the last of their half, and an output is stored only where its row is
// below V / 2.
//
// Needs: LANE_ROWS, outputs, vocab, x_factor, INVOCATIONS, activate, row_sum.
// Defines: weight_row, fetch_end, finish.

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [8][V / 2 / 32] quads

fn weight_row(workgroup: u32, output: u32) -> u32 {
    let half_rows = LANE_ROWS / 2u;
    let pair = output / LANE_ROWS * half_rows + output % half_rows;
    let row = min(workgroup * (outputs() / 2u) + pair, vocab() / 2u - 1u);
    return row + select(0u, vocab() / 2u, output % LANE_ROWS >= half_rows);
}

struct AtEnd {
    nothing: u32,
}

fn fetch_end(workgroup: u32, lane: u32) -> AtEnd {
    return AtEnd(0u);
}

fn finish(workgroup: u32, lane: u32, fetched: AtEnd) {
    let half_rows = LANE_ROWS / 2u;
    let width = vocab() / 2u;
    let factor = x_factor();
    for (var output = lane; output < outputs() / 2u; output += INVOCATIONS) {
        let row = workgroup * (outputs() / 2u) + output;
        if row < width {
            let gate = output / half_rows * LANE_ROWS + output % half_rows;
            let value = activate(row_sum(gate) * factor) * (row_sum(gate + half_rows) * factor);
            t_out[(row % 32u / 4u * (width / 32u) + row / 32u) * 4u + row % 4u] = value;
        }
    }
}
