// ---- shape/overrides.wgsl

// The shape of the matrix as pipeline constants, so that the compiler turns divisions by K and G
// into shifts and multiplications.
//
// Defines: VOCAB, embed_dim, group_size, vocab.

override EMBED_DIM: u32;  // K
override GROUP_SIZE: u32;  // G
override VOCAB: u32;  // V

fn embed_dim() -> u32 {
    return EMBED_DIM;
}

fn group_size() -> u32 {
    return GROUP_SIZE;
}

fn vocab() -> u32 {
    return VOCAB;
}

// ---- half/native.wgsl

// Half-precision numbers converted by the built-in functions.
//
// WGSL leaves open how these functions round, what they make of values out of range, and whether
// they keep subnormals. This piece is only for devices on which probe/halves.wgsl found that they
// round to nearest even, overflow to infinity and keep subnormals. half/integer.wgsl works
// everywhere.
//
// Defines: half_to_float, half_of_word, floats_to_halves.

// Return the half-precision number in the low 16 bits.
fn half_to_float(half: u32) -> f32 {
    return unpack2x16float(half).x;
}

// Return one of the two half-precision numbers in a word. Choosing after both are converted takes fewer
// instructions than a shift and a mask before.
fn half_of_word(word: u32, index: u32) -> f32 {
    return unpack2x16float(word)[index];
}

// Return four floats rounded to half precision.
fn floats_to_halves(values: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}

// ---- linear/matrix_units/halve_x.wgsl

// x [M, K] to halves for gemm.wgsl: tiles of 16 × 16, [M' / 16][K' / 16][16][16], with zeros past M
// and K. Each row is multiplied by the power of two that brings its largest value to 2^14 … 2^15,
// so that none overflows and few become subnormal; the inverse of the power goes to t_out_scales.
// Eight columns are in the order 0 4 1 5 2 6 3 7, as those of the weight are staged.
//
// A workgroup of 64 invocations converts one row.
//
// Grid: M' workgroups, folded over x and y.
// Assumes: K' is a multiple of 16, and so is M'.
// In range: rows past M' do nothing, rows of x are clamped to M − 1 and quads to the last.
//
// Needs: embed_dim, floats_to_halves.
// Defines: main.

const LANES = 64u;

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // [M' / 16][K' / 16][16][2], eight halves each
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', the exponent of the weight, 0
@group(0) @binding(6) var<storage, read_write> t_out_scales: array<f32>;  // [M'], the inverse of each row's power of two

override PADDED_DIM: u32;  // K': K rounded up to a multiple of 64

var<workgroup> largest: array<f32, LANES>;

// Return 2^exponent, for exponents of normal floats.
fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(exponent + 127) << 23u);
}

fn load_quad(m: u32, k4: u32) -> vec4<f32> {
    let quads = embed_dim() / 4u;
    let value = t_x[min(m, sizes.x - 1u) * quads + min(k4, quads - 1u)];
    return select(vec4<f32>(0.0), value, m < sizes.x && k4 < quads);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let m = workgroup.y * grid.x + workgroup.x;
    if m >= sizes.y {
        return;
    }
    var most = vec4<f32>(0.0);
    for (var k4 = lane; k4 < embed_dim() / 4u; k4 += LANES) {
        most = max(most, abs(load_quad(m, k4)));
    }
    largest[lane] = max(max(most.x, most.y), max(most.z, most.w));
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            largest[lane] = max(largest[lane], largest[lane + half]);
        }
        workgroupBarrier();
    }

    // Rows of zeros, and rows that hold an infinity, stay as they are.
    let biased = bitcast<u32>(largest[0]) >> 23u;
    let usual = biased > 0u && biased < 255u;
    let exponent = select(0, min(141 - i32(biased), 126), usual);
    let scale = power_of_two(exponent);
    for (var k8 = lane; k8 < PADDED_DIM / 8u; k8 += LANES) {
        let low = load_quad(m, 2u * k8) * scale;
        let high = load_quad(m, 2u * k8 + 1u) * scale;
        let front = floats_to_halves(vec4<f32>(low.x, high.x, low.y, high.y));
        let back = floats_to_halves(vec4<f32>(low.z, high.z, low.w, high.w));
        let tile = m / 16u * (PADDED_DIM / 16u) + k8 / 2u;
        t_out[tile * 32u + m % 16u * 2u + k8 % 2u] = vec4<u32>(front, back);
    }
    if lane == 0u {
        t_out_scales[m] = power_of_two(-exponent);
    }
}
