// y = x · Wᵀ + bias for one row of x, on the grid that ExecuTorch's WebGPU backend dispatches. The
// grid is finer than the work: a workgroup computes a tile of outputs, or several where the grid was
// cut, and the workgroups between leave at once.
//
// A workgroup is two teams of 64 lanes. The lanes of a team share rows of the weight. A lane takes four
// words of each row at a time, which lie 64 words apart, so that neighbouring lanes read neighbouring
// words. A tile of a large matrix is 16 outputs: each team has 8 of them. A tile of a small matrix is
// 4 outputs, so that there are enough tiles: both teams have all four, and split the columns.
//
// Scales of neighbouring outputs are neighbours in memory, but a lane needs those of neighbouring
// groups, so they go through workgroup memory. A slot row is a row of one team; the sums of its 64
// lanes take the place of its scales.
//
// Grid: ⌈V / 2⌉ workgroups, or as many as the device allows.
// Assumes: K % 8 == 0, G % 8 == 0, and wg_size 128, which every device allows.
//
// Needs: vocab, load_weight_word, embed_dim, group_size, load_scale, unpack_word, load_bias.
// Defines: main.

override wg_size: u32 = 128u;  // invocations of a workgroup

const LANES = 64u;
const MOST_GROUPS = 64u;  // that a slot row holds
const PITCH = 65u;  // of a slot row: no two lanes ask a memory bank at once
const PARTS = 1040u;  // after 16 slot rows: sums of a part of a slot row, [parts][slot rows]
const FOLDED = 1168u;  // after 128 of those: four of them added up
const LARGE = 8192u;  // outputs

var<workgroup> slots: array<f32, 1200>;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [V]
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [K / 4]

// Four words of each of four rows of the weight.
struct Words {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// x beside four words of a row, 8 columns each.
struct Columns {
    x0: vec4<f32>, x1: vec4<f32>,
    y0: vec4<f32>, y1: vec4<f32>,
    z0: vec4<f32>, z1: vec4<f32>,
    w0: vec4<f32>, w1: vec4<f32>,
}

fn load_columns(k8: u32, half: u32, end: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), t_x[2u * min(k8, end - 1u) + half], k8 < end);
}

fn load_all_columns(k8: vec4<u32>, end: u32) -> Columns {
    return Columns(
        load_columns(k8.x, 0u, end), load_columns(k8.x, 1u, end),
        load_columns(k8.y, 0u, end), load_columns(k8.y, 1u, end),
        load_columns(k8.z, 0u, end), load_columns(k8.z, 1u, end),
        load_columns(k8.w, 0u, end), load_columns(k8.w, 1u, end),
    );
}

// Return four words of a row; rows past the last repeat it.
fn load_row(row: u32, k8: vec4<u32>) -> vec4<u32> {
    let inside = min(row, vocab() - 1u);
    return vec4<u32>(
        load_weight_word(inside, k8.x),
        load_weight_word(inside, k8.y),
        load_weight_word(inside, k8.z),
        load_weight_word(inside, k8.w),
    );
}

fn load_rows(row: u32, k8: vec4<u32>) -> Words {
    return Words(
        load_row(row, k8), load_row(row + 1u, k8), load_row(row + 2u, k8), load_row(row + 3u, k8),
    );
}

// Return the scales of a row for groups `group`, group + step …; past the last group, the last one.
fn load_four_scales(row: u32, group: u32, step: u32) -> vec4<f32> {
    let inside = min(row, vocab() - 1u);
    let last = (embed_dim() - 1u) / group_size();
    return vec4<f32>(
        load_scale(inside, min(group, last)),
        load_scale(inside, min(group + step, last)),
        load_scale(inside, min(group + 2u * step, last)),
        load_scale(inside, min(group + 3u * step, last)),
    );
}

fn put_four(at: u32, step: u32, values: vec4<f32>) {
    slots[at] = values.x;
    slots[at + step] = values.y;
    slots[at + 2u * step] = values.z;
    slots[at + 3u * step] = values.w;
}

fn sum_of_four(at: u32, step: u32) -> f32 {
    return (slots[at] + slots[at + step]) + (slots[at + 2u * step] + slots[at + 3u * step]);
}

fn dot_word(word: u32, x0: vec4<f32>, x1: vec4<f32>) -> f32 {
    let w = unpack_word(word);
    let low = fma(w.low.w, x0.w, fma(w.low.z, x0.z, fma(w.low.y, x0.y, w.low.x * x0.x)));
    let high = fma(w.high.w, x1.w, fma(w.high.z, x1.z, fma(w.high.y, x1.y, w.high.x * x1.x)));
    return low + high;
}

// Return sum + the products of a row, whose scales begin at `slot`.
fn add_row(sum: f32, words: vec4<u32>, x: Columns, group: vec4<u32>, slot: u32) -> f32 {
    let one = fma(slots[slot + group.x], dot_word(words.x, x.x0, x.x1), sum);
    let two = fma(slots[slot + group.y], dot_word(words.y, x.y0, x.y1), one);
    let three = fma(slots[slot + group.z], dot_word(words.z, x.z0, x.z1), two);
    return fma(slots[slot + group.w], dot_word(words.w, x.w0, x.w1), three);
}

fn add_rows(
    sums: vec4<f32>, words: Words, x: Columns, group: vec4<u32>, slot: u32
) -> vec4<f32> {
    return vec4<f32>(
        add_row(sums.x, words.a, x, group, slot),
        add_row(sums.y, words.b, x, group, slot + PITCH),
        add_row(sums.z, words.c, x, group, slot + 2u * PITCH),
        add_row(sums.w, words.d, x, group, slot + 3u * PITCH),
    );
}

// Compute `rows` outputs from `first_row` on, `team_rows` of them by a team: 16 and 8, or 4 and 4.
fn multiply_tile(first_row: u32, rows: u32, team_rows: u32, lane: u32) {
    let is_split = rows == team_rows;
    let slot_rows = 2u * team_rows;
    let parts = wg_size / slot_rows;
    let words = embed_dim() / 8u;
    let step = min(4u * LANES, MOST_GROUPS * group_size() / 8u);

    // What this lane multiplies: rows of its team.
    let team = lane / LANES;
    let slot = team * team_rows * PITCH;
    let row = first_row + select(team * team_rows, 0u, is_split);
    // What it moves: a part of a slot row.
    let moved_slot = lane % slot_rows;
    let moved_team = moved_slot / team_rows;
    let moved_row = first_row + select(moved_slot, moved_slot % team_rows, is_split);
    let part = lane / slot_rows;
    let moved = moved_slot * PITCH + part;

    var near = vec4<f32>(0.0);
    var far = vec4<f32>(0.0);
    for (var first = 0u; first < words; first += select(step, 2u * step, is_split)) {
        let begin = first + select(0u, team * step, is_split);
        let end = min(begin + step, words);
        let taken = vec4<u32>(begin + lane % LANES) + vec4<u32>(0u, 64u, 128u, 192u);
        let k8 = min(taken, vec4<u32>(end - 1u));
        let near_words = load_rows(row, k8);
        // A part that begins past the last word is none: its x is zero.
        let moved_begin = min(first + select(0u, moved_team * step, is_split), words - 1u);
        let moved_group = moved_begin * 8u / group_size() + part;
        let near_scales = load_four_scales(moved_row, moved_group, parts);
        let x = load_all_columns(taken, end);
        let group = k8 * 8u / group_size() - vec4<u32>(min(begin, words - 1u) * 8u / group_size());
        if is_split {
            workgroupBarrier();
            put_four(moved, parts, near_scales);
            workgroupBarrier();
            near = add_rows(near, near_words, x, group, slot);
        } else {
            let far_words = load_rows(row + 4u, k8);
            let far_scales = load_four_scales(moved_row, moved_group + 4u * parts, parts);
            workgroupBarrier();
            put_four(moved, parts, near_scales);
            put_four(moved + 4u * parts, parts, far_scales);
            workgroupBarrier();
            near = add_rows(near, near_words, x, group, slot);
            far = add_rows(far, far_words, x, group, slot + 4u * PITCH);
        }
    }

    workgroupBarrier();
    put_four(slot + lane % LANES, PITCH, near);
    if !is_split {
        put_four(slot + 4u * PITCH + lane % LANES, PITCH, far);
    }
    workgroupBarrier();
    var sum = sum_of_four(moved, parts);
    if !is_split {
        sum += sum_of_four(moved + 4u * parts, parts);
    }
    slots[PARTS + lane] = sum;
    workgroupBarrier();
    if is_split {
        if lane < 32u {
            slots[FOLDED + lane] = sum_of_four(PARTS + lane, 32u);
        }
        workgroupBarrier();
    }
    let output = first_row + lane;
    if lane < rows && output < vocab() {
        let at = select(PARTS, FOLDED, is_split) + lane;
        t_out[output] = sum_of_four(at, rows) + sum_of_four(at + 4u * rows, rows) + load_bias(output);
    }
}

fn multiply_tiles(workgroup: u32, grid: u32, rows: u32, team_rows: u32, lane: u32) {
    let ratio = rows / 2u;
    if workgroup % ratio != 0u {
        return;
    }
    let tiles = (vocab() + rows - 1u) / rows;
    for (var tile = workgroup / ratio; tile < tiles; tile += (grid + ratio - 1u) / ratio) {
        multiply_tile(tile * rows, rows, team_rows, lane);
    }
}

@compute @workgroup_size(wg_size, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if vocab() >= LARGE {
        multiply_tiles(workgroup.x, grid.x, 16u, 8u, lane);
    } else {
        multiply_tiles(workgroup.x, grid.x, 4u, 4u, lane);
    }
}
