// x is multiplied as it is.
//
// Defines: fetch_squares, put_squares, fold_squares, x_factor.

fn fetch_squares(lane: u32) -> f32 {
    return 0.0;
}

fn put_squares(lane: u32, value: f32) {}

fn fold_squares(lane: u32) {}

fn x_factor() -> f32 {
    return 1.0;
}
