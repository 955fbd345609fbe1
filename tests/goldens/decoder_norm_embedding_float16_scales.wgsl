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

// ---- scales/f16.wgsl

// Scales [V, K/G] as 16-bit floats, two to a word.
//
// In range: callers keep the row below V and the group below K / G.
//
// Needs: embed_dim, group_size, half_of_word.
// Defines: t_scales, load_scale.

@group(0) @binding(3) var<storage, read> t_scales: array<u32>;  // [V][K / G] halves, two each

fn load_scale(row: u32, group: u32) -> f32 {
    let at = row * (embed_dim() / group_size()) + group;
    return half_of_word(t_scales[at >> 1u], at & 1u);
}

// ---- weight/rows.wgsl

// The weight as rows of K/2 bytes in the linear convention: nibble i of 32-bit word k8 is column
// 8·k8 + i. K is a multiple of 8, so every row is a number of whole words.
//
// In range: callers keep the row below V and the word below K / 8.
//
// Needs: embed_dim.
// Defines: load_weight_word, load_weight_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<u32>;  // [V][K / 8], eight columns each

fn load_weight_word(row: u32, k8: u32) -> u32 {
    return t_weight[row * (embed_dim() / 8u) + k8];
}

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let nibbles = load_weight_word(row, k4 >> 1u) >> ((k4 & 1u) * 16u);
    let values = (vec4<u32>(nibbles) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}

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

// ---- decoder/state.wgsl

// Where the sequence is. The host writes it before a prompt; during generation the device does
// (decoder/advance.wgsl).
//
// In range: both places are constants.
//
// Defines: first_position, row_count.

@group(0) @binding(7) var<storage, read> t_state: array<u32>;  // position of the first row, rows

fn first_position() -> u32 {
    return t_state[0];
}

fn row_count() -> u32 {
    return t_state[1];
}

// ---- decoder/order.wgsl

// The two orders of a row of x: quads one after the other, or, for the GEMV of a decode step, quad i
// of all chunks of 32 columns, so that neighbouring lanes read neighbouring quads.
//
// Defines: place_of_quad.

override CHUNKED: u32 = 0u;  // 1: [8 quads][chunks] instead of [chunks][8 quads]

// Return where quad k4 of a row of that many quads lies.
fn place_of_quad(k4: u32, quads: u32) -> u32 {
    if CHUNKED == 1u {
        return k4 % 8u * (quads / 8u) + k4 / 8u;
    }
    return k4;
}

// ---- decoder/source_embedding.wgsl

// The residual stream begins: a row is the embedding of an id, times the model's factor. The weight
// may be a part of the matrix: the first part makes zeros of ids that it does not have, and later
// parts leave them alone.
//
// In range: an id past the vocabulary gives zeros.
//
// Needs: first_position, vocab, load_weight_quad, load_scale, group_size.
// Defines: is_left_alone, start_row, source_quad.

override FACTOR: u32;  // bits of the float that embeddings are multiplied by
override FIRST_ROW: u32 = 0u;  // of the part, in the matrix

@group(0) @binding(9) var<storage, read> t_ids: array<u32>;  // of the whole sequence

// Return the row of the part that a row of the stream is; V or more if it has none.
fn row_of_part(row: u32) -> u32 {
    return t_ids[first_position() + row] - FIRST_ROW;
}

fn is_left_alone(row: u32) -> bool {
    return FIRST_ROW > 0u && row_of_part(row) >= vocab();
}

fn start_row(row: u32, lane: u32) -> f32 {
    return bitcast<f32>(FACTOR);
}

fn source_quad(row: u32, k4: u32, factor: f32) -> vec4<f32> {
    let id = row_of_part(row);
    if id >= vocab() {
        return vec4<f32>(0.0);
    }
    return load_weight_quad(id, k4) * load_scale(id, k4 * 4u / group_size()) * factor;
}

// ---- decoder/norm_rows.wgsl

// Rows of the residual stream: each is updated (source_*.wgsl), then normalized (RMSNorm) and
// multiplied by the gain of the matrix that reads it next.
//
// A workgroup of 256 invocations makes one row; an invocation makes every 256th quad of it.
//
// Grid: a workgroup for each row, folded over x and y; those past the last row do nothing. If
// LAST_ROW is 1, one workgroup makes the last row alone and stores the result as row 0.
//
// Needs: embed_dim, row_count, is_left_alone, start_row, source_quad, place_of_quad.
// Defines: EPSILON, t_residual, sum_of_lanes, main.

override EPSILON: u32;  // bits of the float that is added to the mean of the squares
override LAST_ROW: u32 = 0u;  // 1: the last row alone

const LANES = 256u;

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][K / 4]
@group(0) @binding(1) var<storage, read_write> t_residual: array<vec4<f32>>;  // [rows][K / 4]
@group(0) @binding(8) var<storage, read> t_gain: array<vec4<f32>>;  // [K / 4]

var<workgroup> lane_sums: array<f32, 256>;

// Return the sum of `value` over the lanes.
fn sum_of_lanes(value: f32, lane: u32) -> f32 {
    lane_sums[lane] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lane_sums[lane] += lane_sums[lane + half];
        }
    }
    workgroupBarrier();
    let sum = lane_sums[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let quads = embed_dim() / 4u;
    let target_row = workgroup.y * grid.x + workgroup.x;
    var row = target_row;
    if LAST_ROW == 1u {
        row = row_count() - 1u;
    }
    if row >= row_count() || is_left_alone(row) {
        return;
    }
    let factor = start_row(row, lane);
    var squares = 0.0;
    for (var k4 = lane; k4 < quads; k4 += LANES) {
        let value = source_quad(row, k4, factor);
        t_residual[row * quads + k4] = value;
        squares += dot(value, value);
    }
    let mean = sum_of_lanes(squares, lane) / f32(embed_dim());
    let scale = inverseSqrt(mean + bitcast<f32>(EPSILON));
    for (var k4 = lane; k4 < quads; k4 += LANES) {
        let value = t_residual[row * quads + k4] * scale * t_gain[k4];
        t_out[target_row * quads + place_of_quad(k4, quads)] = value;
    }
}
