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

// ---- linear/common/integers_order_rows.wgsl

// The order of integers of x for a weight in rows: of eight columns, the even ones, then the odd
// ones, as `word & 0x0F0F0F0F` and `(word >> 4) & 0x0F0F0F0F` take the nibbles of a word.
//
// Defines: first_columns, second_columns, ScaleWords, scale_words_of.

fn first_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.xz, high.xz);
}

fn second_columns(low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(low.yw, high.yw);
}

// The scale of a chunk, and the offset of its sum.
alias ScaleWords = vec2<u32>;

fn scale_words_of(scale: f32, first_half: i32, second_half: i32) -> ScaleWords {
    return ScaleWords(bitcast<u32>(scale), bitcast<u32>(first_half + second_half));
}

// ---- linear/common/quantize.wgsl

// Activations as integers: a chunk of 32 columns of x becomes scale · a, with a rounded to 8 ·
// PLANES bits.
//
// scale = max |x| / LEVELS over the chunk. So |x − scale · a| ≤ scale · (1/2 + 2^-7): half a step,
// and the roundings of 1 / scale and of the product. With two planes a = 256 · high + low, both
// signed bytes. The kernels multiply a with nibbles u in place of u − 8; an offset of −8 · Σa, kept
// for each half of the chunk, puts that right. A chunk whose |x| are all below 1e-30 becomes zero.
//
// Four bytes make a word: the first or the second columns (integers_order_*.wgsl) of eight
// neighbouring columns, which are a word of the weight. With two planes, vector w holds the two
// words of columns 8·w … in the low plane and then in the high plane; with one plane, vector h
// holds the words of columns 16·h ….
//
// In range: callers pass the first vector of a chunk that x has.
//
// Needs: t_x, first_columns, second_columns, store_vector, store_scale, scale_words_of.
// Defines: PLANES, quantize.

override PLANES: u32 = 2u;  // bytes of an integer: 1 or 2

fn bytes(values: vec4<i32>) -> u32 {
    let low = bitcast<vec4<u32>>(values) & vec4<u32>(0xFFu);
    return low.x | (low.y << 8u) | (low.z << 16u) | (low.w << 24u);
}

fn high_bytes(values: vec4<i32>) -> u32 {
    return bytes((values + 128) >> vec4<u32>(8u));
}

fn both_planes(first: vec4<i32>, second: vec4<i32>) -> vec4<u32> {
    return vec4<u32>(bytes(first), bytes(second), high_bytes(first), high_bytes(second));
}

fn largest(values: vec4<f32>) -> f32 {
    let sizes_of = abs(values);
    return max(max(sizes_of.x, sizes_of.y), max(sizes_of.z, sizes_of.w));
}

fn rounded(values: vec4<f32>, steps: f32) -> vec4<i32> {
    return vec4<i32>(round(values * steps));
}

fn sum_of(values: vec4<i32>) -> i32 {
    return values.x + values.y + values.z + values.w;
}

// Quantize the chunk that starts at vector `at` of x, and store it for (row, chunk).
fn quantize(at: u32, row: u32, chunk: u32) {
    let x0 = t_x[at];
    let x1 = t_x[at + 1u];
    let x2 = t_x[at + 2u];
    let x3 = t_x[at + 3u];
    let x4 = t_x[at + 4u];
    let x5 = t_x[at + 5u];
    let x6 = t_x[at + 6u];
    let x7 = t_x[at + 7u];
    let top = max(
        max(max(largest(x0), largest(x1)), max(largest(x2), largest(x3))),
        max(max(largest(x4), largest(x5)), max(largest(x6), largest(x7))),
    );
    let levels = select(127.0, 32512.0, PLANES == 2u);
    let is_zero = top < 1e-30;
    let scale = select(top / levels, 0.0, is_zero);
    let steps = select(levels / top, 0.0, is_zero);

    let a0 = rounded(first_columns(x0, x1), steps);
    let b0 = rounded(second_columns(x0, x1), steps);
    let a1 = rounded(first_columns(x2, x3), steps);
    let b1 = rounded(second_columns(x2, x3), steps);
    let a2 = rounded(first_columns(x4, x5), steps);
    let b2 = rounded(second_columns(x4, x5), steps);
    let a3 = rounded(first_columns(x6, x7), steps);
    let b3 = rounded(second_columns(x6, x7), steps);
    if PLANES == 2u {
        store_vector(row, 0u, chunk, both_planes(a0, b0));
        store_vector(row, 1u, chunk, both_planes(a1, b1));
        store_vector(row, 2u, chunk, both_planes(a2, b2));
        store_vector(row, 3u, chunk, both_planes(a3, b3));
    } else {
        store_vector(row, 0u, chunk, vec4<u32>(bytes(a0), bytes(b0), bytes(a1), bytes(b1)));
        store_vector(row, 1u, chunk, vec4<u32>(bytes(a2), bytes(b2), bytes(a3), bytes(b3)));
    }
    let first_half = -8 * sum_of(a0 + b0 + a1 + b1);
    let second_half = -8 * sum_of(a2 + b2 + a3 + b3);
    store_scale(row, chunk, scale_words_of(scale, first_half, second_half));
}

// ---- linear/gemv_integers/integers_here.wgsl

// One row of x that every workgroup quantizes for itself, into workgroup memory.
//
// Assumes: X_ROWS is 1, CHUNKS = K / 32, VECTORS = 2 · PLANES · CHUNKS, and a workgroup has 16 ·
// VECTORS bytes of memory and a ScaleWords for each chunk.
// In range: vectors are below 2 · PLANES and chunks below CHUNKS, by the loops here and in the
// bodies.
//
// Needs: ScaleWords, INVOCATIONS, quantize, sizes, PLANES.
// Defines: t_x, store_vector, store_scale, load_scale_words, prepare_x, load_words.

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]

override CHUNKS: u32 = 64u;  // K / 32
override VECTORS: u32 = 256u;  // 2 · PLANES · CHUNKS: naga 29 panics at a product of overrides as a size

var<workgroup> vectors: array<vec4<u32>, VECTORS>;  // [2 · PLANES][CHUNKS]
var<workgroup> scale_words: array<ScaleWords, CHUNKS>;

fn store_vector(row: u32, v: u32, chunk: u32, words: vec4<u32>) {
    vectors[v * CHUNKS + chunk] = words;
}

fn store_scale(row: u32, chunk: u32, words: ScaleWords) {
    scale_words[chunk] = words;
}

fn load_vector(row: u32, v: u32, chunk: u32) -> vec4<u32> {
    return vectors[v * CHUNKS + chunk];
}

fn load_scale_words(row: u32, chunk: u32) -> ScaleWords {
    return scale_words[chunk];
}

// Quantize row m of x, and return the row that load_words() takes for it.
fn prepare_x(m: u32, lane: u32) -> u32 {
    for (var chunk = lane; chunk < CHUNKS; chunk += INVOCATIONS) {
        quantize((min(m, sizes.x - 1u) * CHUNKS + chunk) * 8u, 0u, chunk);
    }
    workgroupBarrier();
    return 0u;
}

// Columns 8·w … of a chunk: words of the first and of the second columns in the low plane, then in
// the high plane, if there is one.
fn load_words(row: u32, w: u32, chunk: u32) -> vec4<u32> {
    if PLANES == 2u {
        return load_vector(row, w, chunk);
    }
    let both = load_vector(row, w / 2u, chunk);
    return vec4<u32>(select(both.xy, both.zw, w % 2u == 1u), 0u, 0u);
}

// ---- linear/gemv_integers/gemv_rows.wgsl

// y = x · Wᵀ + bias for few rows of x and a weight in rows, x as integers of 8 or 16 bits. Their
// products with the nibbles are exact integers; a chunk's sum is scaled and added in float32.
//
// A workgroup computes the outputs of its teams (linear/gemv/team.wgsl) for X_ROWS rows of x, and
// TILES such sets of outputs one after another, so that preparing x once serves them all. Nothing
// overflows and the conversion to float32 is exact: |Σ (u − 8) · a| ≤ 32 · 8 · 32512 < 2^24.
//
// Grid: ⌈V / (4 · TILES · INVOCATIONS / TEAM)⌉ · ⌈M / X_ROWS⌉ workgroups, folded over x and y.
// Those that differ only in their rows of x are neighbours.
// In range: chunks are below K / 32; rows of x are those that prepare_x() allows.
//
// Needs: PLANES, load_words, X_ROWS, ScaleWords, Sums, Rows, load_scale_words, INVOCATIONS, sizes,
// TEAM, embed_dim, prepare_x, load_rows, store_sums.
// Defines: main.

override TILES: u32 = 1u;  // sets of outputs of a workgroup, one after another

// Sums of products of four rows of the weight with the low and the high plane of a row of x.
struct Planes {
    low: vec4<i32>,
    high: vec4<i32>,
}

// The same for each row of x.
struct Counts {
    first: Planes,
    second: Planes,
    third: Planes,
    fourth: Planes,
    fifth: Planes,
    sixth: Planes,
    seventh: Planes,
    eighth: Planes,
}

fn dot_four(words: vec4<u32>, x: u32, sums: vec4<i32>) -> vec4<i32> {
    return vec4<i32>(
        sums.x + dot4I8Packed(words.x, x),
        sums.y + dot4I8Packed(words.y, x),
        sums.z + dot4I8Packed(words.z, x),
        sums.w + dot4I8Packed(words.w, x),
    );
}

fn dot_words(even: vec4<u32>, odd: vec4<u32>, x: vec4<u32>, sums: Planes) -> Planes {
    var result = sums;
    result.low = dot_four(odd, x.y, dot_four(even, x.x, sums.low));
    if PLANES == 2u {
        result.high = dot_four(odd, x.w, dot_four(even, x.z, sums.high));
    }
    return result;
}

// Word w (8 columns) of a chunk of four rows of the weight, times every row of x.
fn add_words(counts: ptr<function, Counts>, words: vec4<u32>, x_row: u32, w: u32, chunk: u32) {
    let even = words & vec4<u32>(0x0F0F0F0Fu);
    let odd = (words >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu);
    (*counts).first = dot_words(even, odd, load_words(x_row, w, chunk), (*counts).first);
    if X_ROWS > 1u {
        (*counts).second = dot_words(even, odd, load_words(x_row + 1u, w, chunk), (*counts).second);
    }
    if X_ROWS > 2u {
        (*counts).third = dot_words(even, odd, load_words(x_row + 2u, w, chunk), (*counts).third);
        (*counts).fourth = dot_words(even, odd, load_words(x_row + 3u, w, chunk), (*counts).fourth);
    }
    if X_ROWS > 4u {
        (*counts).fifth = dot_words(even, odd, load_words(x_row + 4u, w, chunk), (*counts).fifth);
        (*counts).sixth = dot_words(even, odd, load_words(x_row + 5u, w, chunk), (*counts).sixth);
        (*counts).seventh = dot_words(even, odd, load_words(x_row + 6u, w, chunk), (*counts).seventh);
        (*counts).eighth = dot_words(even, odd, load_words(x_row + 7u, w, chunk), (*counts).eighth);
    }
}

fn scaled(counts: Planes, x: ScaleWords, scales: vec4<f32>, sums: vec4<f32>) -> vec4<f32> {
    let dots = (counts.high << vec4<u32>(8u)) + counts.low + bitcast<i32>(x.y);
    // The scale of x first: the product of the two scales may be subnormal where this is not.
    return fma(scales, vec4<f32>(dots) * bitcast<f32>(x.x), sums);
}

fn add_chunk(sums: ptr<function, Sums>, rows: Rows, x_row: u32, chunk: u32) {
    var counts: Counts;
    add_words(&counts, vec4<u32>(rows.a.x, rows.b.x, rows.c.x, rows.d.x), x_row, 0u, chunk);
    add_words(&counts, vec4<u32>(rows.a.y, rows.b.y, rows.c.y, rows.d.y), x_row, 1u, chunk);
    add_words(&counts, vec4<u32>(rows.a.z, rows.b.z, rows.c.z, rows.d.z), x_row, 2u, chunk);
    add_words(&counts, vec4<u32>(rows.a.w, rows.b.w, rows.c.w, rows.d.w), x_row, 3u, chunk);
    let scales = rows.scales;
    (*sums).first = scaled(counts.first, load_scale_words(x_row, chunk), scales, (*sums).first);
    if X_ROWS > 1u {
        let second = load_scale_words(x_row + 1u, chunk);
        (*sums).second = scaled(counts.second, second, scales, (*sums).second);
    }
    if X_ROWS > 2u {
        let third = load_scale_words(x_row + 2u, chunk);
        (*sums).third = scaled(counts.third, third, scales, (*sums).third);
        let fourth = load_scale_words(x_row + 3u, chunk);
        (*sums).fourth = scaled(counts.fourth, fourth, scales, (*sums).fourth);
    }
    if X_ROWS > 4u {
        let fifth = load_scale_words(x_row + 4u, chunk);
        (*sums).fifth = scaled(counts.fifth, fifth, scales, (*sums).fifth);
        let sixth = load_scale_words(x_row + 5u, chunk);
        (*sums).sixth = scaled(counts.sixth, sixth, scales, (*sums).sixth);
        let seventh = load_scale_words(x_row + 6u, chunk);
        (*sums).seventh = scaled(counts.seventh, seventh, scales, (*sums).seventh);
        let eighth = load_scale_words(x_row + 7u, chunk);
        (*sums).eighth = scaled(counts.eighth, eighth, scales, (*sums).eighth);
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
    let outputs = INVOCATIONS / TEAM * 4u;
    let chunks = embed_dim() / 32u;
    let x_row = prepare_x(first_m, lane);
    for (var i = 0u; i < TILES; i++) {
        let first_n = (flat / tiles_m * TILES + i) * outputs;
        var sums = Sums();
        for (var chunk = lane % TEAM; chunk < chunks; chunk += TEAM) {
            add_chunk(&sums, load_rows(first_n + lane / TEAM * 4u, chunk), x_row, chunk);
        }
        store_sums(sums, first_m, first_n, lane);
    }
}
