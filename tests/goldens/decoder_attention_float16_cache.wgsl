// ---- decoder/two_halves_native.wgsl

// Two half-precision numbers of a word, by the built-in function. This piece is only for devices on
// which probe/halves.wgsl found that it keeps subnormals.
//
// Defines: two_halves.

fn two_halves(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}

// ---- decoder/cache/read_float16.wgsl

// The cache of keys and values in half precision, to be read.
//
// Needs: two_halves.
// Defines: load_key, load_value.

@group(0) @binding(2) var<storage, read> t_keys: array<vec2<u32>>;  // [KV_HEADS][HEAD_DIM / 4][CAPACITY], four halves each
@group(0) @binding(3) var<storage, read> t_values: array<vec2<u32>>;  // [KV_HEADS][CAPACITY][HEAD_DIM / 4], four halves each

fn four_halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(two_halves(words.x), two_halves(words.y));
}

fn load_key(at: u32) -> vec4<f32> {
    return four_halves(t_keys[at]);
}

fn load_value(at: u32) -> vec4<f32> {
    return four_halves(t_values[at]);
}

// ---- decoder/head_shape.wgsl

// The heads of an attention layer, as pipeline constants.
//
// Defines: HEADS, KV_HEADS, HEAD_DIM, CAPACITY.

override HEADS: u32;  // query heads
override KV_HEADS: u32;  // heads of keys and values; they divide the query heads
override HEAD_DIM: u32;  // columns of a head, a multiple of 8 of at most 256
override CAPACITY: u32;  // positions that the cache holds

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

// ---- decoder/cap_none.wgsl

// Scores are not capped.
//
// Defines: cap.

fn cap(score: f32) -> f32 {
    return score;
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

// ---- decoder/attention_whole.wgsl

// A workgroup has seen every position of its row: its sums are the result.
//
// In range: callers keep the head below HEADS and the quad below HEAD_DIM / 4.
//
// Needs: HEADS, HEAD_DIM, place_of_quad.
// Defines: SLICES, store_part.

const SLICES = 1u;

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [rows][HEADS · HEAD_DIM / 4]

fn store_part(
    row: u32, head: u32, slice: u32, d4: u32, total: vec4<f32>, top: f32, weight_total: f32,
) {
    let width = HEADS * HEAD_DIM / 4u;
    let k4 = head * (HEAD_DIM / 4u) + d4;
    t_out[row * width + place_of_quad(k4, width)] = total / weight_total;
}

// ---- decoder/attention.wgsl

// Attention of one query head of one row over the positions up to its own: softmax(q · kᵀ) · v.
//
// A workgroup of LANES invocations takes LANES positions at a time. First an invocation scores one
// position; then an invocation adds up one quad of the values of every (LANES / width)th position.
// The largest score so far, the sum of the weights and the sums of the values are kept as the
// positions go by (online softmax), so the number of positions is not limited by memory.
//
// Grid: rows · HEADS · SLICES workgroups, the slices of a head side by side, folded over x and y;
// those past the last row do nothing. A slice is a part of the positions, whole multiples of LANES.
// Assumes: LANES is a multiple of 16, and at least HEAD_DIM / 4.
//
// Needs: SLICES, HEAD_DIM, HEADS, row_count, first_position, KV_HEADS, load_key, CAPACITY, cap,
// load_value, store_part.
// Defines: main.

override LANES: u32 = 128u;  // invocations of a workgroup, and positions taken at a time
override WINDOW: u32 = 0u;  // positions that a row sees, itself included; 0 for all

const LOWEST = -1e30;  // below every score

@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // queries [rows][HEADS · HEAD_DIM / 4]

var<workgroup> query: array<vec4<f32>, 64>;
var<workgroup> scores: array<f32, LANES>;
var<workgroup> weights: array<f32, LANES>;
var<workgroup> folded: array<f32, 16>;
var<workgroup> parts_of_values: array<vec4<f32>, LANES>;

// Return the largest of the scores. They must have been written before.
fn largest_score(lane: u32) -> f32 {
    workgroupBarrier();
    if lane < 16u {
        var top = LOWEST;
        for (var i = lane; i < LANES; i += 16u) {
            top = max(top, scores[i]);
        }
        folded[lane] = top;
    }
    workgroupBarrier();
    var largest = folded[0];
    for (var i = 1u; i < 16u; i++) {
        largest = max(largest, folded[i]);
    }
    return largest;
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let slice = flat % SLICES;
    let width = HEAD_DIM / 4u;
    let head = flat / SLICES % HEADS;
    let row = flat / SLICES / HEADS;
    if row >= row_count() {
        return;
    }
    let end = first_position() + row + 1u;
    var begin = 0u;
    if WINDOW > 0u {
        begin = end - min(end, WINDOW);
    }
    let slice_tiles = ((end - begin + LANES - 1u) / LANES + SLICES - 1u) / SLICES;
    let first = min(end, begin + slice * slice_tiles * LANES);
    let last = min(end, first + slice_tiles * LANES);
    let kv_head = head / (HEADS / KV_HEADS);
    if lane < width {
        query[lane] = t_in[(row * HEADS + head) * width + lane];
    }
    workgroupBarrier();

    let parts = LANES / width;
    let part = lane / width;
    let d4 = lane % width;
    var top = LOWEST;
    var weight_sum = 0.0;
    var sum = vec4<f32>(0.0);
    for (var base = first; base < last; base += LANES) {
        let position = base + lane;
        var score = LOWEST;
        if position < last {
            var product = 0.0;
            for (var i = 0u; i < width; i++) {
                product += dot(load_key((kv_head * width + i) * CAPACITY + position), query[i]);
            }
            score = cap(product);
        }
        scores[lane] = score;
        let next_top = max(top, largest_score(lane));
        let rescale = exp(top - next_top);
        let weight = select(0.0, exp(score - next_top), position < last);
        weights[lane] = weight;
        weight_sum = weight_sum * rescale + weight;
        sum *= rescale;
        top = next_top;
        workgroupBarrier();
        if part < parts {
            let count = min(LANES, last - base);
            for (var i = part; i < count; i += parts) {
                let value = load_value((kv_head * CAPACITY + base + i) * width + d4);
                sum = fma(vec4<f32>(weights[i]), value, sum);
            }
        }
    }
    workgroupBarrier();
    parts_of_values[lane] = sum;
    scores[lane] = weight_sum;
    workgroupBarrier();
    if lane < width {
        var total = vec4<f32>(0.0);
        for (var i = 0u; i < parts; i++) {
            total += parts_of_values[i * width + lane];
        }
        var weight_total = 0.0;
        for (var i = 0u; i < LANES; i++) {
            weight_total += scores[i];
        }
        store_part(row, head, slice, lane, total, top, weight_total);
    }
}
