// Queries and keys are not normalized.
//
// Defines: normalize.

fn normalize(value: vec4<f32>, d4: u32, is_key: bool, lane: u32) -> vec4<f32> {
    return value;
}
