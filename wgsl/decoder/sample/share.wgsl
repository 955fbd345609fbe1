// The share top-p of a sum of weights.
//
// Needs: multiply_wide, nucleus_share, add_wide.
// Defines: share_of.

// Return the share of a sum below 2^48, at least 1.
fn share_of(total: vec2<u32>) -> vec2<u32> {
    let low = multiply_wide(total.x, nucleus_share());
    let high = multiply_wide(total.y, nucleus_share());
    let share = add_wide(
        vec2<u32>((low.y << 1u) | (low.x >> 31u), low.y >> 31u),
        vec2<u32>(high.x << 1u, (high.y << 1u) | (high.x >> 31u)),
    );
    return vec2<u32>(select(share.x, 1u, share.x == 0u && share.y == 0u), share.y);
}
