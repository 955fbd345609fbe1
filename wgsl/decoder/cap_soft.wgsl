// Numbers are capped softly: c · tanh(x / c).
//
// Defines: cap.

override SOFT_CAP: u32;  // bits of the float c

fn cap(score: f32) -> f32 {
    let limit = bitcast<f32>(SOFT_CAP);
    return limit - 2.0 * limit / (1.0 + exp(min(2.0 * score / limit, 80.0)));
}
