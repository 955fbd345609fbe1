// The weight of an id: its probability over that of the best id, as a multiple of 2^-weight_bits().
//
// Integers, so that the sum of weights depends on no order and the draw on no driver: WGSL's exp2
// may differ from one to another. With d = (best − logit) · scale, one float32 subtraction and one
// multiplication, the weight is 2^(weight_bits() − d), rounded. 2^-x for the fraction x of d is a
// polynomial of degree 6 that is fitted to 2^-x at Chebyshev's points and exact at 0; with its
// 32-bit arithmetic it is right to 2^-27.
//
// Needs: scale, weight_bits, multiply_wide.
// Defines: weight_of.

// Return the weight of a logit that is at most `best`; 0 for −∞.
fn weight_of(best: f32, logit: f32) -> u32 {
    let distance = (best - logit) * scale();
    if !(distance < f32(weight_bits() + 1u)) {
        return 0u;
    }
    let whole = u32(distance);
    let fraction = u32((distance - f32(whole)) * 4294967296.0);
    var inner = 493840u;
    inner = 5548197u - multiply_wide(inner, fraction).y;
    inner = 41219531u - multiply_wide(inner, fraction).y;
    inner = 238367584u - multiply_wide(inner, fraction).y;
    inner = 1031763232u - multiply_wide(inner, fraction).y;
    inner = 2977044448u - multiply_wide(inner, fraction).y;
    let power = 0x80000000u - (multiply_wide(inner, fraction).y >> 1u);  // 2^31 · 2^-x
    let shift = 31u - weight_bits() + whole;
    return select((power + (1u << (shift - 1u))) >> shift, 0u, shift > 31u);
}
