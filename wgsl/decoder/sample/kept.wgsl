// The weight with which an id takes part in the draw: 0 outside the nucleus and below min-p.
//
// Needs: nucleus_digits, logit_weight, least_weight, logit_order.
// Defines: find_nucleus, kept_weight.

override NUCLEUS: u32 = 0u;  // 1 if there is a top-p

var<private> nucleus_end: u32 = 0u;

// Find the last logit of the nucleus, for kept_weight(). All lanes call it.
fn find_nucleus(row: u32, lane: u32) {
    if NUCLEUS != 0u {
        nucleus_end = nucleus_digits(row, 4u, lane);
    }
}

fn kept_weight(row: u32, column: u32) -> u32 {
    let weight = logit_weight(row, column);
    let is_kept = weight >= least_weight() && logit_order(row, column) >= nucleus_end;
    return select(0u, weight, is_kept);
}
