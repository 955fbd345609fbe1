// The histogram of one level of the nucleus.
//
// A workgroup of 256 invocations takes a slice of SLICE logits and adds the weights of those whose
// first LEVEL digits are the nucleus's to a histogram of its own, by their next digit, then its
// histogram to the row's. See nucleus.wgsl.
//
// Grid: rows · ⌈COLUMNS / SLICE⌉ workgroups, those of a row side by side, folded over x and y.
// Assumes: SLICE is at most 2^16 and a row has at most 256 slices, so that no sum overflows.
// In range: workgroups past the last row do nothing; columns are below COLUMNS; digits are below
// 256 and levels below 4.
//
// Needs: slices_of_row, rows, find_best, nucleus_digits, COLUMNS, SLICE, LANES, logit_order,
// logit_weight, t_histograms.
// Defines: main.

override LEVEL: u32;  // digits that are known

var<workgroup> low_sums: array<atomic<u32>, 256>;
var<workgroup> high_sums: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / slices_of_row();
    if row >= rows() {
        return;
    }
    let slice = flat % slices_of_row();
    atomicStore(&low_sums[lane], 0u);
    atomicStore(&high_sums[lane], 0u);
    find_best(row, lane);
    let known = nucleus_digits(row, LEVEL, lane);
    let end = min(COLUMNS, (slice + 1u) * SLICE);
    for (var column = slice * SLICE + lane; column < end; column += LANES) {
        let found = logit_order(row, column);
        // the known digits, by a shift below 32
        if LEVEL == 0u || (found >> (32u - 8u * max(LEVEL, 1u))) == known {
            let weight = logit_weight(row, column);
            let digit = (found >> (24u - 8u * LEVEL)) & 0xffu;
            atomicAdd(&low_sums[digit], weight & 0xffffu);
            atomicAdd(&high_sums[digit], weight >> 16u);
        }
    }
    workgroupBarrier();
    let low = atomicLoad(&low_sums[lane]);
    let high = atomicLoad(&high_sums[lane]) + (low >> 16u);
    let at = ((row * 4u + LEVEL) * LANES + lane) * 2u;
    if (low & 0xffffu) != 0u {
        atomicAdd(&t_histograms[at], low & 0xffffu);
    }
    if high != 0u {
        atomicAdd(&t_histograms[at + 1u], high);
    }
}
