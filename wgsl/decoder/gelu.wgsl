// The activation of the gate: GELU as tanh approximates it. (1 + tanh u) / 2 is 1 / (1 + e^−2u).
//
// Defines: activate.

fn activate(x: f32) -> f32 {
    let u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(min(-2.0 * u, 80.0)));
}
