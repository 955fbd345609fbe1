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

// ---- weight/rows_wide.wgsl

// The weight as rows of K/2 bytes in the linear convention, read 16 bytes at a time: nibble i of
// component c of chunk k32 is column 32·k32 + 8·c + i.
//
// Assumes: K % 32 == 0, so that every row starts at a multiple of 16 bytes.
// In range: callers keep the row below V and the chunk below K / 32.
//
// Needs: embed_dim.
// Defines: load_weight_chunk.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 32], 32 columns each

fn load_weight_chunk(row: u32, k32: u32) -> vec4<u32> {
    return t_weight[row * (embed_dim() / 32u) + k32];
}

// ---- linear/gemv/nibbles_subnormal.wgsl

// Eight nibbles of a word for eight columns of x, with fewer instructions: two nibbles are read at
// once as half-precision subnormals, n·2^−24 where a nibble lies at bit 0 of a half and n·2^−20
// where it lies at bit 4. Subtracting 8·2^−24 or 8·2^−20 is exact. The even columns (0, 4, 2, 6)
// are the first quad, the odd ones (1, 5, 3, 7) the second; x has the same order, and its odd
// columns are divided by 16.
//
// WGSL allows a device to flush half-precision subnormals to zero. This piece is only for devices
// on which probe/halves.wgsl found that they are kept.
//
// Defines: UNSCALE, arrange_first, arrange_second, unpack_first, unpack_second.

const UNSCALE = 16777216.0;

fn arrange_first(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.x, high.x, low.z, high.z);
}

fn arrange_second(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.y, high.y, low.w, high.w) * 0.0625;
}

fn unpack_first(word: u32) -> vec4<f32> {
    let low = unpack2x16float(word & 0x000F000Fu);
    let high = unpack2x16float((word >> 8u) & 0x000F000Fu);
    return vec4<f32>(low, high) - 4.76837158203125e-7;
}

fn unpack_second(word: u32) -> vec4<f32> {
    let low = unpack2x16float(word & 0x00F000F0u);
    let high = unpack2x16float((word >> 8u) & 0x00F000F0u);
    return vec4<f32>(low, high) - 7.62939453125e-6;
}

// ---- decoder/gemv/dot_nibbles.wgsl

// The products of 32 nibbles and a chunk of x, unpacked as linear/gemv/nibbles_*.wgsl does it.
//
// Needs: X, arrange_first, arrange_second, unpack_first, unpack_second, UNSCALE.
// Defines: arrange, dot_nibbles.

// Put x into the order in which nibbles are unpacked.
fn arrange(x: X) -> X {
    return X(
        arrange_first(x.a, x.b), arrange_second(x.a, x.b),
        arrange_first(x.c, x.d), arrange_second(x.c, x.d),
        arrange_first(x.e, x.f), arrange_second(x.e, x.f),
        arrange_first(x.g, x.h), arrange_second(x.g, x.h),
        x.sum,
    );
}

// Return sum + the eight products of a word and x.
fn dot_word(word: u32, low: vec4<f32>, high: vec4<f32>, sum: f32) -> f32 {
    let first = unpack_first(word);
    let second = unpack_second(word);
    let part = fma(first.w, low.w, fma(first.z, low.z, fma(first.y, low.y, fma(first.x, low.x, sum))));
    return fma(second.w, high.w, fma(second.z, high.z, fma(second.y, high.y, fma(second.x, high.x, part))));
}

// Return the sum of (q − 8) · x, in two sums, so that no addition waits for more than 15 others.
fn dot_nibbles(words: vec4<u32>, x: X) -> f32 {
    let first = dot_word(words.y, x.c, x.d, dot_word(words.x, x.a, x.b, 0.0));
    let second = dot_word(words.w, x.g, x.h, dot_word(words.z, x.e, x.f, 0.0));
    return (first + second) * UNSCALE;
}

// ---- decoder/gemv/weight_q4gsw.wgsl

// The GEMV's weight in 4 bits: a chunk is 16 bytes and a scale.
//
// Assumes: K % 32 == 0 and G % 32 == 0.
//
// Needs: load_weight_chunk, load_scale, group_size, X, dot_nibbles.
// Defines: Chunk, load_chunk, dot_chunk.

struct Chunk {
    words: vec4<u32>,
    scale: f32,
}

fn load_chunk(row: u32, chunk: u32) -> Chunk {
    return Chunk(load_weight_chunk(row, chunk), load_scale(row, chunk * 32u / group_size()));
}

fn dot_chunk(chunk: Chunk, x: X) -> f32 {
    return dot_nibbles(chunk.words, x) * chunk.scale;
}

// ---- decoder/gemv/prologue_norm.wgsl

// x is normalized (RMSNorm). Whoever wrote x has multiplied it by the gain, and has left sums of the
// squares of what it was before; the reciprocal of their root is a factor of every output.
//
// In range: sums are below SQUARES; places in workgroup memory are below INVOCATIONS and 16.
//
// Needs: INVOCATIONS, embed_dim.
// Defines: fetch_squares, put_squares, fold_squares, x_factor.

override SQUARES: u32;  // how many sums of squares there are
override EPSILON: u32;  // bits of the float that is added to the mean of the squares

@group(0) @binding(6) var<storage, read> t_squares: array<f32>;  // [SQUARES]

var<workgroup> lane_squares: array<f32, INVOCATIONS>;
var<workgroup> folded_squares: array<f32, 16>;

fn fetch_squares(lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < SQUARES; i += INVOCATIONS) {
        sum += t_squares[i];
    }
    return sum;
}

fn put_squares(lane: u32, value: f32) {
    lane_squares[lane] = value;
}

fn fold_squares(lane: u32) {
    for (var place = lane; place < 16u; place += INVOCATIONS) {
        var sum = 0.0;
        for (var i = place; i < INVOCATIONS; i += 16u) {
            sum += lane_squares[i];
        }
        folded_squares[place] = sum;
    }
}

fn x_factor() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 16u; i++) {
        sum += folded_squares[i];
    }
    return inverseSqrt(sum / f32(embed_dim()) + bitcast<f32>(EPSILON));
}

// ---- decoder/cap_none.wgsl

// Scores are not capped.
//
// Defines: cap.

fn cap(score: f32) -> f32 {
    return score;
}

// ---- decoder/gemv/epilogue_best.wgsl

// The product is the logits: they are stored, and each workgroup leaves the best of its own, the first
// of the largest, for a reduction (reduce/of_candidates.wgsl).  The weight may be a part of the
// matrix, whose rows, logits and entries come after those of other parts.
//
// In range: rows are clamped to V − 1, and an output is stored only where its row is below V; a
// workgroup stores one entry, at its own number after FIRST_ENTRY.
//
// Needs: INVOCATIONS, outputs, vocab, x_factor, cap, row_sum.
// Defines: weight_row, fetch_end, finish.

override FIRST_ROW: u32 = 0u;  // of the part, in the matrix
override FIRST_ENTRY: u32 = 0u;  // of the part's workgroups

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [V of the matrix]
@group(0) @binding(5) var<storage, read_write> t_out_best: array<vec2<u32>>;  // one for each workgroup: bits of a logit, id

var<workgroup> own_logits: array<f32, INVOCATIONS>;  // the best of each invocation's outputs
var<workgroup> own_ids: array<u32, INVOCATIONS>;

fn weight_row(workgroup: u32, output: u32) -> u32 {
    return min(workgroup * outputs() + output, vocab() - 1u);
}

struct AtEnd {
    nothing: u32,
}

fn fetch_end(workgroup: u32, lane: u32) -> AtEnd {
    return AtEnd(0u);
}

fn finish(workgroup: u32, lane: u32, fetched: AtEnd) {
    let first = workgroup * outputs();
    let factor = x_factor();
    // Neighbouring outputs, so that the first of equals is that of the first invocation.
    let each = (outputs() + INVOCATIONS - 1u) / INVOCATIONS;
    for (var i = 0u; i < each; i++) {
        let output = lane * each + i;
        if output < outputs() {
            let logit = cap(row_sum(output) * factor);
            // Rows past the last are copies of it: they do not come first.
            if first + output < vocab() {
                t_out[FIRST_ROW + first + output] = logit;
            }
            if i == 0u || logit > own_logits[lane] {
                own_logits[lane] = logit;
                own_ids[lane] = first + output;
            }
        }
    }
    workgroupBarrier();
    if lane == 0u && first < vocab() {
        var best = own_logits[0];
        var owner = 0u;
        for (var i = 1u; i < outputs() / each; i++) {
            if own_logits[i] > best {
                best = own_logits[i];
                owner = i;
            }
        }
        t_out_best[FIRST_ENTRY + workgroup] = vec2<u32>(bitcast<u32>(best), FIRST_ROW + own_ids[owner]);
    }
}

// ---- decoder/gemv/x_in_chunks.wgsl

// x in the order of chunks, as its producer stored it: neighbouring invocations read neighbouring quads.
//
// In range: callers keep the chunk below K / 32.
//
// Needs: X, embed_dim, chunk_of.
// Defines: stage_x, load_x.

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [8][K / 32]

fn stage_x(first_chunk: u32, lane: u32) {}

fn load_x(chunk: u32) -> X {
    let chunks = embed_dim() / 32u;
    return chunk_of(
        t_x[chunk], t_x[chunks + chunk], t_x[2u * chunks + chunk], t_x[3u * chunks + chunk],
        t_x[4u * chunks + chunk], t_x[5u * chunks + chunk],
        t_x[6u * chunks + chunk], t_x[7u * chunks + chunk],
    );
}

// ---- decoder/gemv/gemv.wgsl

// W · x for one row of x, as a decode step needs it: what is done before and after the product is
// part of it (prologue_*.wgsl, epilogue_*.wgsl).
//
// A team of TEAM invocations shares LANE_ROWS rows of the weight. An invocation has whole chunks of
// 32 columns of x in registers, every TEAMth, and multiplies the same chunk of each of the rows with
// them; all of these are asked for before the first is used. Then the sums of a team are added up
// (fold_*.wgsl). Where x comes from is said in x_in_*.wgsl.
//
// Grid: ⌈rows / (INVOCATIONS / TEAM · LANE_ROWS)⌉ workgroups, folded over x and y, where the epilogue
// says how many rows there are of each kind.
// Assumes: K % 32 == 0 and G % 32 == 0; TEAM divides INVOCATIONS; LANE_ROWS is 1, 2, 4 or 8 and, unless
// TEAM is 1, at most TEAM; a workgroup has 4 · INVOCATIONS · (LANE_ROWS + 4) bytes of memory besides the
// epilogue's.
// In range: chunks are below K / 32; the epilogue clamps rows of the weight to the last; places in
// workgroup memory follow from the invocation's index alone.
//
// Needs: embed_dim, fetch_end, stage_x, load_chunk, weight_row, Chunk, arrange, load_x, dot_chunk,
// put_squares, fetch_squares, leave_sums, fold, finish.
// Defines: INVOCATIONS, TEAM, LANE_ROWS, X, outputs, chunk_of, main.

override INVOCATIONS: u32 = 128u;  // of a workgroup
override TEAM: u32 = 32u;  // invocations that share rows of the weight
override LANE_ROWS: u32 = 2u;  // rows that a team shares

// A chunk of x, and its sum.
struct X {
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
    sum: f32,
}

// Return the outputs of a workgroup.
fn outputs() -> u32 {
    return INVOCATIONS / TEAM * LANE_ROWS;
}

// Return a chunk of x with its sum, which a weight with offsets needs.
fn chunk_of(
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
) -> X {
    let sums = ((a + b) + (c + d)) + ((e + f) + (g + h));
    return X(a, b, c, d, e, f, g, h, (sums.x + sums.y) + (sums.z + sums.w));
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let first = lane / TEAM * LANE_ROWS;
    let chunks = embed_dim() / 32u;
    // Asked for before the product, because nothing waits for it until the end.
    let fetched = fetch_end(flat, lane);
    var near = vec4<f32>(0.0);
    var far = vec4<f32>(0.0);
    // The number of turns is a constant to the compiler.
    for (var first_chunk = 0u; first_chunk < chunks; first_chunk += TEAM) {
        stage_x(first_chunk, lane);
        let chunk = first_chunk + lane % TEAM;
        if chunk < chunks {
            let a = load_chunk(weight_row(flat, first), chunk);
            var b: Chunk;
            var c: Chunk;
            var d: Chunk;
            var e: Chunk;
            var f: Chunk;
            var g: Chunk;
            var h: Chunk;
            if LANE_ROWS > 1u {
                b = load_chunk(weight_row(flat, first + 1u), chunk);
            }
            if LANE_ROWS > 2u {
                c = load_chunk(weight_row(flat, first + 2u), chunk);
                d = load_chunk(weight_row(flat, first + 3u), chunk);
            }
            if LANE_ROWS > 4u {
                e = load_chunk(weight_row(flat, first + 4u), chunk);
                f = load_chunk(weight_row(flat, first + 5u), chunk);
                g = load_chunk(weight_row(flat, first + 6u), chunk);
                h = load_chunk(weight_row(flat, first + 7u), chunk);
            }
            let x = arrange(load_x(chunk));
            near.x += dot_chunk(a, x);
            if LANE_ROWS > 1u {
                near.y += dot_chunk(b, x);
            }
            if LANE_ROWS > 2u {
                near.z += dot_chunk(c, x);
                near.w += dot_chunk(d, x);
            }
            if LANE_ROWS > 4u {
                far.x += dot_chunk(e, x);
                far.y += dot_chunk(f, x);
                far.z += dot_chunk(g, x);
                far.w += dot_chunk(h, x);
            }
        }
    }
    put_squares(lane, fetch_squares(lane));
    leave_sums(lane, first, near, far);
    fold(lane);
    finish(flat, lane, fetched);
}

// ---- decoder/gemv/fold_memory.wgsl

// The sums of a team's invocations meet in workgroup memory, and are added up in two stages of about as
// many each.
//
// Assumes: FOLD divides TEAM and is at least LANE_ROWS.
// In range: places follow from the invocation's index alone.
//
// Needs: INVOCATIONS, LANE_ROWS, TEAM, fold_squares, outputs.
// Defines: leave_sums, fold, row_sum.

override FOLD: u32 = 8u;  // invocations of a team whose sums are added up first

var<workgroup> slots: array<f32, INVOCATIONS * LANE_ROWS + INVOCATIONS>;  // [outputs][TEAM + 1]
var<workgroup> folded: array<f32, INVOCATIONS>;  // [TEAM / FOLD][outputs]

// Leave an invocation's sums of LANE_ROWS outputs from the first of its team.
fn leave_sums(lane: u32, first: u32, near: vec4<f32>, far: vec4<f32>) {
    let at = first * (TEAM + 1u) + lane % TEAM;
    slots[at] = near.x;
    if LANE_ROWS > 1u {
        slots[at + TEAM + 1u] = near.y;
    }
    if LANE_ROWS > 2u {
        slots[at + 2u * (TEAM + 1u)] = near.z;
        slots[at + 3u * (TEAM + 1u)] = near.w;
    }
    if LANE_ROWS > 4u {
        slots[at + 4u * (TEAM + 1u)] = far.x;
        slots[at + 5u * (TEAM + 1u)] = far.y;
        slots[at + 6u * (TEAM + 1u)] = far.z;
        slots[at + 7u * (TEAM + 1u)] = far.w;
    }
}

// Add up what FOLD invocations of a team left.
fn fold(lane: u32) {
    workgroupBarrier();
    fold_squares(lane);
    if lane < outputs() * (TEAM / FOLD) {
        let at = lane % outputs() * (TEAM + 1u) + lane / outputs() * FOLD;
        var sum = 0.0;
        for (var i = 0u; i < FOLD; i++) {
            sum += slots[at + i];
        }
        folded[lane] = sum;
    }
    workgroupBarrier();
}

// Return an output of the workgroup, without the factor of x.
fn row_sum(output: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < TEAM / FOLD; i++) {
        sum += folded[i * outputs() + output];
    }
    return sum;
}
