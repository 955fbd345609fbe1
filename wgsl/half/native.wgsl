// Half-precision numbers by the built-in functions.
//
// WGSL leaves open how these round, what they make of values beyond the range, and whether
// subnormals survive: only for devices where the probe (probe/halves.wgsl) found them to round to
// nearest even, overflow to infinity and keep subnormals.  integer.wgsl works everywhere.

// The number in the low 16 bits.
fn half_to_float(half: u32) -> f32 {
    return unpack2x16float(half).x;
}

// Four floats rounded to half precision.
fn floats_to_halves(values: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}
