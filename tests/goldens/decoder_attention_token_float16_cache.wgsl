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

// ---- decoder/two_halves_native.wgsl

// Two half-precision numbers of a word, by the built-in function. This piece is only for devices on
// which probe/halves.wgsl found that it keeps subnormals.
//
// Defines: two_halves.

fn two_halves(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}

// ---- decoder/cache/both_float16.wgsl

// The cache of keys and values in half precision, to be read and written.
//
// In range: callers keep the places below KV_HEADS · CAPACITY · HEAD_DIM / 4.
//
// Needs: two_halves, floats_to_halves.
// Defines: load_key, load_value, store_key, store_value.

@group(0) @binding(2) var<storage, read_write> t_keys: array<vec2<u32>>;  // [KV_HEADS][HEAD_DIM / 4][CAPACITY], four halves each
@group(0) @binding(3) var<storage, read_write> t_values: array<vec2<u32>>;  // [KV_HEADS][CAPACITY][HEAD_DIM / 4], four halves each

fn four_halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(two_halves(words.x), two_halves(words.y));
}

fn load_key(at: u32) -> vec4<f32> {
    return four_halves(t_keys[at]);
}

fn load_value(at: u32) -> vec4<f32> {
    return four_halves(t_values[at]);
}

fn store_key(at: u32, value: vec4<f32>) {
    t_keys[at] = floats_to_halves(value);
}

fn store_value(at: u32, value: vec4<f32>) {
    t_values[at] = floats_to_halves(value);
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

// ---- decoder/heads_plain.wgsl

// Queries and keys are not normalized.
//
// Defines: normalize.

fn normalize(value: vec4<f32>, d4: u32, is_key: bool, lane: u32) -> vec4<f32> {
    return value;
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

// ---- decoder/attention_token.wgsl

// Attention of one query head of one row, from what the product with the query, key and value matrices
// made: the query and the row's own key are made ready here (decoder/heads.wgsl does it for many rows),
// and one workgroup for each head of keys puts them into the cache. Other workgroups of the dispatch may
// read the cache before that, so the row's own key and value are taken from workgroup memory.
//
// A workgroup of LANES invocations takes LANES positions at a time, as decoder/attention.wgsl does. If
// WHOLE_TILES is 1, it reads as many values for the last tile as for the others (those past the end
// count for nothing), so that the number of turns is known to the compiler.
//
// Grid: HEADS · SLICES workgroups, the slices of a head side by side, folded over x and y; those past
// the last do nothing. A slice is a part of the positions, whole multiples of LANES.
// Assumes: LANES is a multiple of 16, and at least HEAD_DIM / 4 and 64; HEAD_DIM is a multiple of 8 of
// at most 256.
// In range: the position is clamped to CAPACITY − 1 and those of the cache to it; heads are below
// HEADS; places in workgroup memory follow from the invocation's index and HEAD_DIM.
//
// Needs: HEAD_DIM, load_key, CAPACITY, load_value, HEADS, normalize, SLICES, KV_HEADS,
// first_position, store_key, store_value, cap, store_part.
// Defines: main.

override LANES: u32 = 128u;  // invocations of a workgroup, and positions taken at a time
override WINDOW: u32 = 0u;  // positions that a row sees, itself included; 0 for all
override WHOLE_TILES: u32 = 0u;  // 1: as many turns over values for every tile
override SCALE: u32;  // bits of the float that queries are multiplied by

const LOWEST = -1e30;  // below every score
const FETCHED = 16u;  // quads of a key, and values, that are asked for ahead

alias Quads = array<vec4<f32>, 16>;

@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // [(HEADS + 2 · KV_HEADS) · HEAD_DIM / 4]
@group(0) @binding(4) var<storage, read> t_rope: array<vec4<f32>>;  // [CAPACITY][HEAD_DIM / 4], cosine and sine of two columns

var<workgroup> query: array<vec4<f32>, 64>;
var<workgroup> own_key: array<vec4<f32>, 64>;
var<workgroup> scores: array<f32, LANES>;
var<workgroup> weights: array<f32, LANES>;
var<workgroup> folded: array<f32, 16>;
var<workgroup> parts_of_values: array<vec4<f32>, LANES>;

// Return the largest of the scores.
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

// Ask for the first 16 quads of a key.
fn fetch_key(kv_head: u32, position: u32) -> Quads {
    let width = HEAD_DIM / 4u;
    var key: Quads;
    for (var i = 0u; i < min(width, FETCHED); i++) {
        key[i] = load_key((kv_head * width + i) * CAPACITY + position);
    }
    return key;
}

// Return the position in the tile of the value that an invocation adds in a turn.
fn place_of_turn(turn: u32, lane: u32) -> u32 {
    return lane / (HEAD_DIM / 4u) + turn * (LANES / (HEAD_DIM / 4u));
}

fn fetch_value(kv_head: u32, base: u32, last: u32, turn: u32, lane: u32) -> vec4<f32> {
    let width = HEAD_DIM / 4u;
    let position = min(base + min(place_of_turn(turn, lane), LANES - 1u), last - 1u);
    return load_value((kv_head * CAPACITY + position) * width + lane % width);
}

// Ask for the values of the first 16 turns.
fn fetch_values(kv_head: u32, base: u32, last: u32, lane: u32) -> Quads {
    var values: Quads;
    for (var turn = 0u; turn < min(turns_of(LANES), FETCHED); turn++) {
        values[turn] = fetch_value(kv_head, base, last, turn, lane);
    }
    return values;
}

// Return the turns that it takes to add the values of so many positions.
fn turns_of(count: u32) -> u32 {
    let parts = LANES / (HEAD_DIM / 4u);
    return (count + parts - 1u) / parts;
}

// Return the product of a query and a key, of which the first 16 quads are here; the row's own key is in
// workgroup memory.
fn product_with(key: Quads, kv_head: u32, position: u32, own: u32) -> f32 {
    let width = HEAD_DIM / 4u;
    var sum = 0.0;
    for (var i = 0u; i < min(width, FETCHED); i++) {
        sum += dot(select(key[i], own_key[i], position == own), query[i]);
    }
    for (var i = FETCHED; i < width; i++) {
        let quad = load_key((kv_head * width + i) * CAPACITY + position);
        sum += dot(select(quad, own_key[i], position == own), query[i]);
    }
    return sum;
}

fn rotate(value: vec4<f32>, partner: vec4<f32>, position: u32, d4: u32) -> vec4<f32> {
    let width = HEAD_DIM / 4u;
    let half = width / 2u;
    let first = t_rope[position * width + d4 % half * 2u];
    let second = t_rope[position * width + d4 % half * 2u + 1u];
    let sine = vec4<f32>(first.yw, second.yw) * select(1.0, -1.0, d4 < half);
    return value * vec4<f32>(first.xz, second.xz) + partner * sine;
}

// Make the query and the row's own key ready, and leave them in workgroup memory.
fn prepare(head: u32, kv_head: u32, position: u32, lane: u32) {
    let width = HEAD_DIM / 4u;
    let d4 = lane % width;
    let half = width / 2u;
    let key_at = (HEADS + kv_head) * width;
    let raw_query = t_in[head * width + d4];
    let raw_key = t_in[key_at + d4];
    let normal_query = normalize(raw_query, d4, false, lane);
    let normal_key = normalize(raw_key, d4, true, lane);
    if lane < width {
        query[lane] = normal_query;
        own_key[lane] = normal_key;
    }
    workgroupBarrier();
    let query_partner = query[(d4 + half) % width];
    let key_partner = own_key[(d4 + half) % width];
    workgroupBarrier();
    if lane < width {
        query[lane] = rotate(normal_query, query_partner, position, d4) * bitcast<f32>(SCALE);
        own_key[lane] = rotate(normal_key, key_partner, position, d4);
    }
    workgroupBarrier();
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
    let head = flat / SLICES;
    if head >= HEADS {
        return;
    }
    let kv_head = head / (HEADS / KV_HEADS);
    let own = min(first_position(), CAPACITY - 1u);
    let end = own + 1u;
    var begin = 0u;
    if WINDOW > 0u {
        begin = end - min(end, WINDOW);
    }
    let slice_tiles = ((end - begin + LANES - 1u) / LANES + SLICES - 1u) / SLICES;
    let first = min(end, begin + slice * slice_tiles * LANES);
    let last = min(end, first + slice_tiles * LANES);
    let parts = LANES / width;
    let part = lane / width;
    let d4 = lane % width;
    let own_value = t_in[(HEADS + KV_HEADS + kv_head) * width + d4];
    // Asked for before anything waits. An empty slice asks for a position that there is.
    var key = fetch_key(kv_head, min(first + lane, last - 1u));
    var values = fetch_values(kv_head, first, last, lane);
    prepare(head, kv_head, own, lane);
    if slice == 0u && head % (HEADS / KV_HEADS) == 0u && lane < width {
        store_key((kv_head * width + lane) * CAPACITY + own, own_key[lane]);
        store_value((kv_head * CAPACITY + own) * width + lane, own_value);
    }

    var top = LOWEST;
    var weight_sum = 0.0;
    var sum = vec4<f32>(0.0);
    for (var base = first; base < last; base += LANES) {
        let position = min(base + lane, last - 1u);
        let product = product_with(key, kv_head, position, own);
        let score = select(LOWEST, cap(product), base + lane < last);
        scores[lane] = score;
        let next_top = max(top, largest_score(lane));
        let rescale = exp(top - next_top);
        let weight = select(0.0, exp(score - next_top), base + lane < last);
        weights[lane] = weight;
        weight_sum = weight_sum * rescale + weight;
        sum *= rescale;
        top = next_top;
        workgroupBarrier();
        if part < parts {
            let count = select(min(LANES, last - base), LANES, WHOLE_TILES == 1u);
            for (var turn = 0u; turn < min(turns_of(count), FETCHED); turn++) {
                let place = place_of_turn(turn, lane);
                let share = select(0.0, weights[min(place, LANES - 1u)], place < LANES);
                let value = select(values[turn], own_value, min(base + place, last - 1u) == own);
                sum = fma(vec4<f32>(share), value, sum);
            }
            for (var turn = FETCHED; turn < turns_of(count); turn++) {
                let place = place_of_turn(turn, lane);
                let share = select(0.0, weights[min(place, LANES - 1u)], place < LANES);
                let stored = fetch_value(kv_head, base, last, turn, lane);
                let value = select(stored, own_value, min(base + place, last - 1u) == own);
                sum = fma(vec4<f32>(share), value, sum);
            }
        }
        if base + LANES < last {
            key = fetch_key(kv_head, min(base + LANES + lane, last - 1u));
            values = fetch_values(kv_head, base + LANES, last, lane);
        }
    }
    workgroupBarrier();
    parts_of_values[lane] = sum;
    scores[lane] = weight_sum;
    workgroupBarrier();
    if lane < 16u {
        var folded_sum = 0.0;
        for (var i = lane; i < LANES; i += 16u) {
            folded_sum += scores[i];
        }
        folded[lane] = folded_sum;
    }
    workgroupBarrier();
    if lane < width {
        var total = vec4<f32>(0.0);
        for (var i = 0u; i < parts; i++) {
            total += parts_of_values[i * width + lane];
        }
        var weight_total = 0.0;
        for (var i = 0u; i < 16u; i++) {
            weight_total += folded[i];
        }
        store_part(0u, head, slice, lane, total, top, weight_total);
    }
}
