// The activation of the gate: SiLU, x / (1 + e^−x).
//
// Defines: activate.

fn activate(x: f32) -> f32 {
    return x / (1.0 + exp(min(-x, 80.0)));
}
