// The product is the logits: they are stored, and each workgroup leaves the best of its own, the first
// of the largest, for a reduction (reduce/of_candidates.wgsl).  The weight may be a part of the
// matrix, whose rows, logits and entries come after those of other parts.
//
// In range: rows are clamped to V − 1, and an output is stored only where its row is below V; a
// workgroup stores one entry, at its own number after FIRST_ENTRY.
//
// Needs: INVOCATIONS, outputs, vocab, x_factor, cap, row_sum.
// Defines: weight_row, fetch_end, finish.

override FIRST_ROW: u32 = 0u;  // of the part, in the matrix
override FIRST_ENTRY: u32 = 0u;  // of the part's workgroups

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [V of the matrix]
@group(0) @binding(5) var<storage, read_write> t_out_best: array<vec2<u32>>;  // one for each workgroup: bits of a logit, id

var<workgroup> own_logits: array<f32, INVOCATIONS>;  // the best of each invocation's outputs
var<workgroup> own_ids: array<u32, INVOCATIONS>;

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
    let first = workgroup * outputs();
    let factor = x_factor();
    // Neighbouring outputs, so that the first of equals is that of the first invocation.
    let each = (outputs() + INVOCATIONS - 1u) / INVOCATIONS;
    for (var i = 0u; i < each; i++) {
        let output = lane * each + i;
        if output < outputs() {
            let logit = cap(row_sum(output) * factor);
            // Rows past the last are copies of it: they do not come first.
            if first + output < vocab() {
                t_out[FIRST_ROW + first + output] = logit;
            }
            if i == 0u || logit > own_logits[lane] {
                own_logits[lane] = logit;
                own_ids[lane] = first + output;
            }
        }
    }
    workgroupBarrier();
    if lane == 0u && first < vocab() {
        var best = own_logits[0];
        var owner = 0u;
        for (var i = 1u; i < outputs() / each; i++) {
            if own_logits[i] > best {
                best = own_logits[i];
                owner = i;
            }
        }
        t_out_best[FIRST_ENTRY + workgroup] = vec2<u32>(bitcast<u32>(best), FIRST_ROW + own_ids[owner]);
    }
}
