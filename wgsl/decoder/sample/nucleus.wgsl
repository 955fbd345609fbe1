// The best ids whose weights make up the share top-p of all: the nucleus, found digit by digit.
//
// A logit's order has four digits of 8 bits, the highest first. The histogram of a level has, for
// each digit, the weight of the logits whose higher digits are those of the nucleus's last logit,
// in two words: the sum of the weights' low halves, and that of their high halves with what the low
// ones carried. All logits equal to the last one are in the nucleus.
//
// In range: callers keep the row below the number of rows; levels are below 4, digits below 256.
//
// Needs: LANES, add_wide, sum_up_to, share_of, sum_of_all, sum_before, at_least.
// Defines: t_histograms, nucleus_digits.

@group(0) @binding(5) var<storage, read_write> t_histograms: array<atomic<u32>>;  // [rows][4][256][2]

var<workgroup> found_digit: u32;
var<workgroup> still_wanted: vec2<u32>;

// Return the first `levels` digits of the order of the nucleus's last logit. All lanes call it.
fn nucleus_digits(row: u32, levels: u32, lane: u32) -> u32 {
    var digits = 0u;
    for (var level = 0u; level < levels; level++) {
        let digit = LANES - 1u - lane;  // from the best down
        let at = ((row * 4u + level) * LANES + digit) * 2u;
        let high = atomicLoad(&t_histograms[at + 1u]);
        let mass = add_wide(
            vec2<u32>(atomicLoad(&t_histograms[at]), 0u), vec2<u32>(high << 16u, high >> 16u)
        );
        let up_to = sum_up_to(lane, mass);
        if level == 0u && lane == 0u {
            still_wanted = share_of(sum_of_all());
        }
        if lane == 0u {
            found_digit = 0u;
        }
        workgroupBarrier();
        let wanted = still_wanted;
        workgroupBarrier();
        let before = sum_before(lane);
        if at_least(up_to, wanted) && !at_least(before, wanted) {
            found_digit = digit;
            still_wanted = subtract(wanted, before);
        }
        workgroupBarrier();
        digits = (digits << 8u) | found_digit;
    }
    return digits;
}

fn subtract(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}
