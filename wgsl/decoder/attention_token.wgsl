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
