// Half-precision numbers converted by integer arithmetic: the same bits on every device.
//
// Defines: half_to_float, half_of_word, floats_to_halves.

// Return the half-precision number in the low 16 bits.
fn half_to_float(half: u32) -> f32 {
    let magnitude = half & 0x7FFFu;
    let normal = (magnitude << 13u) + 0x38000000u;
    let subnormal = bitcast<u32>(f32(magnitude) * 5.9604644775390625e-8);
    let sign = (half & 0x8000u) << 16u;
    return bitcast<f32>(select(normal, subnormal, magnitude < 0x0400u) | sign);
}

// Return one of the two half-precision numbers in a word.
fn half_of_word(word: u32, index: u32) -> f32 {
    return half_to_float((word >> (index * 16u)) & 0xFFFFu);
}

// Return four floats rounded to half precision: to nearest even, overflow to infinity.
fn floats_to_halves(values: vec4<f32>) -> vec2<u32> {
    let bits = bitcast<vec4<u32>>(values);
    let magnitudes = bits & vec4<u32>(0x7FFFFFFFu);
    let ties_to_even = vec4<u32>(0x0FFFu) + ((magnitudes >> vec4<u32>(13u)) & vec4<u32>(1u));
    let normal = (magnitudes + ties_to_even - vec4<u32>(0x38000000u)) >> vec4<u32>(13u);
    let subnormal = vec4<u32>(round(abs(values) * 16777216.0));
    let small = magnitudes < vec4<u32>(0x38800000u);
    let rounded = select(min(normal, vec4<u32>(0x7C00u)), subnormal, small);
    let halves = rounded | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
    return vec2<u32>(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
}
