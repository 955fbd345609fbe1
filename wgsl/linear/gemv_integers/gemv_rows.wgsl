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
