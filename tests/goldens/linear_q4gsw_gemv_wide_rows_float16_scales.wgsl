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

// ---- linear/common/bias_none.wgsl

// No bias.
//
// Defines: load_bias.

fn load_bias(row: u32) -> f32 {
    return 0.0;
}

// ---- linear/common/result.wgsl

// Where the outputs of a product belong: in rows of V.
//
// A weight may be one part of a larger matrix. Its outputs are then some columns of a wider result,
// which is bound where the first of them lies.
//
// In range: callers keep the row of x below M and the output below V, which is at most RESULT_ROW.
//
// Needs: VOCAB.
// Defines: result_at.

override RESULT_ROW: u32 = VOCAB;  // outputs in a row of the result: those of all parts of the matrix

fn result_at(m: u32, n: u32) -> u32 {
    return m * RESULT_ROW + n;
}

// ---- linear/common/exact_f32.wgsl

// Nibbles to floats without a conversion instruction, exactly.
//
// A nibble n or'ed at bit p into the mantissa of 2^23 makes the float 2^23 + n·2^p. Subtracting
// 2^23 + 8·2^p leaves (n − 8)·2^p, without rounding. Four nibbles of a word are taken where they
// lie, at p = 0, 4, 8, 12; the powers of two go into the numbers that they are multiplied with,
// also exactly.
//
// Defines: UNSHIFT, shifted_quad, total.

const NIBBLES = vec4<u32>(0x000Fu, 0x00F0u, 0x0F00u, 0xF000u);
const MAGIC = vec4<u32>(0x4B000000u);
const OFFSETS = vec4<f32>(8388616.0, 8388736.0, 8390656.0, 8421376.0);
const UNSHIFT = vec4<f32>(1.0, 0.0625, 0.00390625, 0.000244140625);

// Return (n − 8)·(1, 16, 256, 4096) of the four low nibbles of `word`.
fn shifted_quad(word: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>((vec4<u32>(word) & NIBBLES) | MAGIC) - OFFSETS;
}

fn total(sums: vec4<f32>) -> f32 {
    return (sums.x + sums.y) + (sums.z + sums.w);
}

// ---- linear/gemv/nibbles_integer.wgsl

// Eight nibbles of a word for eight columns of x, by integer arithmetic
// (linear/common/exact_f32.wgsl), which works on every device. Columns 0 to 3 are the first quad, 4
// to 7 the second.
//
// Needs: UNSHIFT, shifted_quad.
// Defines: UNSCALE, arrange_first, arrange_second, unpack_first, unpack_second.

const UNSCALE = 1.0;

fn arrange_first(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return low * UNSHIFT;
}

fn arrange_second(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return high * UNSHIFT;
}

fn unpack_first(word: u32) -> vec4<f32> {
    return shifted_quad(word);
}

fn unpack_second(word: u32) -> vec4<f32> {
    return shifted_quad(word >> 16u);
}

// ---- linear/gemv/team.wgsl

// A team of invocations for four neighbouring outputs: what the GEMVs that read whole chunks of
// rows share.
//
// A workgroup of INVOCATIONS has INVOCATIONS / TEAM teams. A team computes 4 outputs for up to
// X_ROWS rows of x. It shares those 4 rows of the weight, a chunk of 32 columns (16 bytes) of each
// at a time, and every invocation has sums of its own until the team adds them up in workgroup
// memory. A weight that is unpacked once serves every row of x.
//
// Assumes: K % 32 == 0 and G % 32 == 0; TEAM is a power of two from 4 to 32; X_ROWS is 1, 2, 4 or
// 8; a workgroup has 16 · INVOCATIONS bytes of memory besides those for x.
// In range: rows of the weight are clamped to V − 1 here; callers ask for chunks below K / 32. An
// output is stored only where its row is below V and its row of x below M.
//
// Needs: group_size, vocab, load_weight_chunk, load_scale, result_at, load_bias.
// Defines: INVOCATIONS, TEAM, X_ROWS, sizes, Sums, Rows, load_rows, store_sums.

override INVOCATIONS: u32 = 256u;  // of a workgroup
override TEAM: u32 = 16u;  // invocations that share four rows of the weight
override X_ROWS: u32 = 1u;  // rows of x that a workgroup takes: 1, 2, 4 or 8

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [M][RESULT_ROW]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0

var<workgroup> slots: array<vec4<f32>, INVOCATIONS>;

// Sums of an invocation: a vector of the four outputs for each row of x.
struct Sums {
    first: vec4<f32>,
    second: vec4<f32>,
    third: vec4<f32>,
    fourth: vec4<f32>,
    fifth: vec4<f32>,
    sixth: vec4<f32>,
    seventh: vec4<f32>,
    eighth: vec4<f32>,
}

// 32 columns of four neighbouring rows of the weight, with their scales.
struct Rows {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
    scales: vec4<f32>,
}

// Load 32 columns of four rows. Rows past the last repeat it: they are computed in vain, but read
// nothing out of range.
fn load_rows(row: u32, chunk: u32) -> Rows {
    let group = chunk * 32u / group_size();
    let last_row = vocab() - 1u;
    let a = min(row, last_row);
    let b = min(row + 1u, last_row);
    let c = min(row + 2u, last_row);
    let d = min(row + 3u, last_row);
    return Rows(
        load_weight_chunk(a, chunk),
        load_weight_chunk(b, chunk),
        load_weight_chunk(c, chunk),
        load_weight_chunk(d, chunk),
        vec4<f32>(
            load_scale(a, group),
            load_scale(b, group),
            load_scale(c, group),
            load_scale(d, group),
        ),
    );
}

// Add up the sums of the teams' invocations for row m of x, and store them.
fn store_row(sums: vec4<f32>, m: u32, first_n: u32, lane: u32) {
    slots[lane] = sums;
    workgroupBarrier();
    let row = first_n + lane;
    let is_inside = lane < INVOCATIONS / TEAM * 4u && row < vocab() && m < sizes.x;
    if is_inside {
        let first_slot = lane / 4u * TEAM;
        var sum = 0.0;
        for (var i = 0u; i < TEAM; i++) {
            // Every team starts at another slot: no two read from one memory bank at a time.
            sum += slots[first_slot + (i + lane / 4u) % TEAM][lane % 4u];
        }
        t_out[result_at(m, row)] = sum + load_bias(row);
    }
    workgroupBarrier();
}

fn store_sums(sums: Sums, m: u32, first_n: u32, lane: u32) {
    store_row(sums.first, m, first_n, lane);
    if X_ROWS > 1u {
        store_row(sums.second, m + 1u, first_n, lane);
    }
    if X_ROWS > 2u {
        store_row(sums.third, m + 2u, first_n, lane);
        store_row(sums.fourth, m + 3u, first_n, lane);
    }
    if X_ROWS > 4u {
        store_row(sums.fifth, m + 4u, first_n, lane);
        store_row(sums.sixth, m + 5u, first_n, lane);
        store_row(sums.seventh, m + 6u, first_n, lane);
        store_row(sums.eighth, m + 7u, first_n, lane);
    }
}

// ---- linear/gemv/gemv_wide.wgsl

// y = x · Wᵀ + bias for few rows of x and a weight in rows: exact products, sums in float32.
//
// A workgroup computes the outputs of its teams (team.wgsl) for X_ROWS rows of x. It stages SLICE
// chunks of 32 columns of x at a time in workgroup memory, in the order in which nibbles are
// unpacked, and so that the invocations of a team read neighbouring 16 bytes.
//
// Grid: ⌈V / (4 · INVOCATIONS / TEAM)⌉ · ⌈M / X_ROWS⌉ workgroups, folded over x and y. Those that
// differ only in their rows of x are neighbours, so that the weight comes from the cache for all
// but the first.
// Assumes: what team.wgsl assumes, and 128 · X_ROWS · SLICE bytes of workgroup memory.
// In range: chunks of x and of the weight are below K / 32, and rows of x are clamped to M − 1;
// places in x_tile are below X_ROWS · 8 · SLICE, since a staged chunk is below SLICE.
//
// Needs: X_ROWS, unpack_first, unpack_second, Sums, Rows, UNSCALE, INVOCATIONS, sizes, embed_dim,
// arrange_first, arrange_second, TEAM, load_rows, store_sums.
// Defines: main.

override SLICE: u32 = 64u;  // chunks of x that are staged at a time

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]

// [X_ROWS][4 words × 2 quads][SLICE]
var<workgroup> x_tile: array<vec4<f32>, X_ROWS * 8u * SLICE>;

// A word (8 columns) of four rows of the weight.
struct Unpacked {
    a0: vec4<f32>, a1: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>,
    c0: vec4<f32>, c1: vec4<f32>,
    d0: vec4<f32>, d1: vec4<f32>,
}

fn unpack_words(a: u32, b: u32, c: u32, d: u32) -> Unpacked {
    return Unpacked(
        unpack_first(a), unpack_second(a),
        unpack_first(b), unpack_second(b),
        unpack_first(c), unpack_second(c),
        unpack_first(d), unpack_second(d),
    );
}

// Return sum + the eight products of w0, w1 and x0, x1.
fn dot_eight(w0: vec4<f32>, w1: vec4<f32>, x0: vec4<f32>, x1: vec4<f32>, sum: f32) -> f32 {
    let first = fma(w0.w, x0.w, fma(w0.z, x0.z, fma(w0.y, x0.y, fma(w0.x, x0.x, sum))));
    return fma(w1.w, x1.w, fma(w1.z, x1.z, fma(w1.y, x1.y, fma(w1.x, x1.x, first))));
}

fn dot_words(w: Unpacked, at: u32, sums: vec4<f32>) -> vec4<f32> {
    let x0 = x_tile[at];
    let x1 = x_tile[at + SLICE];
    return vec4<f32>(
        dot_eight(w.a0, w.a1, x0, x1, sums.x),
        dot_eight(w.b0, w.b1, x0, x1, sums.y),
        dot_eight(w.c0, w.c1, x0, x1, sums.z),
        dot_eight(w.d0, w.d1, x0, x1, sums.w),
    );
}

// Add one word of each of the four rows, times every row of x; `at` is the word's place in the
// first row of x.
fn add_words(partial: ptr<function, Sums>, w: Unpacked, at: u32) {
    (*partial).first = dot_words(w, at, (*partial).first);
    if X_ROWS > 1u {
        (*partial).second = dot_words(w, at + 8u * SLICE, (*partial).second);
    }
    if X_ROWS > 2u {
        (*partial).third = dot_words(w, at + 16u * SLICE, (*partial).third);
        (*partial).fourth = dot_words(w, at + 24u * SLICE, (*partial).fourth);
    }
    if X_ROWS > 4u {
        (*partial).fifth = dot_words(w, at + 32u * SLICE, (*partial).fifth);
        (*partial).sixth = dot_words(w, at + 40u * SLICE, (*partial).sixth);
        (*partial).seventh = dot_words(w, at + 48u * SLICE, (*partial).seventh);
        (*partial).eighth = dot_words(w, at + 56u * SLICE, (*partial).eighth);
    }
}

// Products are scaled after they are summed over a chunk, which lies in one group.
fn add_chunk(sums: ptr<function, Sums>, rows: Rows, at: u32) {
    var partial: Sums;
    add_words(&partial, unpack_words(rows.a.x, rows.b.x, rows.c.x, rows.d.x), at);
    add_words(&partial, unpack_words(rows.a.y, rows.b.y, rows.c.y, rows.d.y), at + 2u * SLICE);
    add_words(&partial, unpack_words(rows.a.z, rows.b.z, rows.c.z, rows.d.z), at + 4u * SLICE);
    add_words(&partial, unpack_words(rows.a.w, rows.b.w, rows.c.w, rows.d.w), at + 6u * SLICE);
    let scales = rows.scales * UNSCALE;
    (*sums).first = fma(scales, partial.first, (*sums).first);
    (*sums).second = fma(scales, partial.second, (*sums).second);
    (*sums).third = fma(scales, partial.third, (*sums).third);
    (*sums).fourth = fma(scales, partial.fourth, (*sums).fourth);
    (*sums).fifth = fma(scales, partial.fifth, (*sums).fifth);
    (*sums).sixth = fma(scales, partial.sixth, (*sums).sixth);
    (*sums).seventh = fma(scales, partial.seventh, (*sums).seventh);
    (*sums).eighth = fma(scales, partial.eighth, (*sums).eighth);
}

fn stage_x(first_m: u32, first_chunk: u32, chunks: u32, lane: u32) {
    for (var i = lane; i < X_ROWS * SLICE * 4u; i += INVOCATIONS) {
        let word = i % 4u;
        let chunk = i / 4u % SLICE;
        let row = i / (4u * SLICE);
        if chunk < chunks {
            let m = min(first_m + row, sizes.x - 1u);
            let at = m * (embed_dim() / 4u) + (first_chunk + chunk) * 8u + word * 2u;
            let low = t_x[at];
            let high = t_x[at + 1u];
            x_tile[(row * 8u + word * 2u) * SLICE + chunk] = arrange_first(low, high);
            x_tile[(row * 8u + word * 2u + 1u) * SLICE + chunk] = arrange_second(low, high);
        }
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let tiles_m = (sizes.x + X_ROWS - 1u) / X_ROWS;
    let first_m = flat % tiles_m * X_ROWS;
    let first_n = flat / tiles_m * (INVOCATIONS / TEAM * 4u);
    let row = first_n + lane / TEAM * 4u;
    let chunks = embed_dim() / 32u;

    var sums: Sums;
    for (var first_chunk = 0u; first_chunk < chunks; first_chunk += SLICE) {
        let staged = min(SLICE, chunks - first_chunk);
        stage_x(first_m, first_chunk, staged, lane);
        workgroupBarrier();
        for (var chunk = lane % TEAM; chunk < staged; chunk += TEAM) {
            add_chunk(&sums, load_rows(row, first_chunk + chunk), chunk);
        }
        workgroupBarrier();
    }
    store_sums(sums, first_m, first_n, lane);
}
