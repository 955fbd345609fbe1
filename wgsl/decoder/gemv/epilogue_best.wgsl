// The product is the logits: they are stored, and each workgroup leaves the best of its own, the first
// of the largest, for a reduction (reduce/of_candidates.wgsl).
//
// In range: rows are clamped to V − 1, and an output is stored only where its row is below V; a
// workgroup stores one entry, at its own number.
//
// Needs: outputs, vocab, cap, totals.
// Defines: weight_row, finish.

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [V]
@group(0) @binding(5) var<storage, read_write> t_out_best: array<vec2<u32>>;  // one for each workgroup: bits of a logit, id

fn weight_row(workgroup: u32, output: u32) -> u32 {
    return min(workgroup * outputs() + output, vocab() - 1u);
}

fn finish(workgroup: u32, lane: u32) {
    let first = workgroup * outputs();
    if lane < outputs() && first + lane < vocab() {
        t_out[first + lane] = cap(totals[lane]);
    }
    if lane == 0u && first < vocab() {
        var best = totals[0];
        var id = first;
        for (var i = 1u; i < min(outputs(), vocab() - first); i++) {
            if totals[i] > best {
                best = totals[i];
                id = first + i;
            }
        }
        t_out_best[workgroup] = vec2<u32>(bitcast<u32>(cap(best)), id);
    }
}
