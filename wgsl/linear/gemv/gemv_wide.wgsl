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
