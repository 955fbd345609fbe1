// What a draw depends on, as `wgpu_q4.kernels.decoder.sampling` writes it.
//
// Defines: ALLOWED, PENALIZED, rows, seed, scale, penalty, flags, nucleus_share, least_weight,
// weight_bits.

@group(0) @binding(4) var<uniform> settings: array<vec4<u32>, 3>;  // the accessors below name each word

const ALLOWED = 1u;  // a flag: t_allowed says which ids may be drawn
const PENALIZED = 2u;  // a flag: logits of the ids in t_seen are lowered

fn rows() -> u32 {
    return settings[0].x;
}

fn seed() -> vec2<u32> {
    return settings[0].zw;
}

// Return log2(e) / temperature.
fn scale() -> f32 {
    return bitcast<f32>(settings[1].x);
}

// Return the factor of negative logits, and that of others, its inverse.
fn penalty() -> vec2<f32> {
    return bitcast<vec2<f32>>(settings[1].yz);
}

fn flags() -> u32 {
    return settings[1].w;
}

// Return top-p as a multiple of 2^-31.
fn nucleus_share() -> u32 {
    return settings[2].x;
}

// Return min-p as a weight.
fn least_weight() -> u32 {
    return settings[2].y;
}

// Return the exponent of the largest weight, a power of two.
fn weight_bits() -> u32 {
    return settings[2].z;
}
