// x = y · W, the transposed product: exact products of the weight, sums in float32.
//
// The sum runs over the V rows of the weight, in sections of SECTION rows. A workgroup computes 256
// columns (32 words of 8) of four rows of the result, over one section. Its 128 invocations are four
// lanes of 32 words: lane i takes every fourth row of the weight, and the lanes are added up in
// workgroup memory. Where there are several sections, add_sections.wgsl adds them.
//
// A weight may be one part of a larger matrix. Then its numbers of y are some columns of wider rows,
// which are bound where the first of them lies, and sections of other parts precede its own.
//
// Grid: ⌈M / 4⌉ · ⌈K / 256⌉ · sections workgroups, folded over x and y. Those that differ only in
// their rows of y are neighbours, so that the weight comes from the cache for all but the first.
// Assumes: 4 KiB of workgroup memory.
// In range: rows of y are clamped to M − 1, words to the last of a row, and rows of the weight are
// below V; workgroups past the last section read no row of the weight and store nothing.
//
// Needs: VOCAB, load_weight_word, load_scale, group_size, shifted_quad, UNSHIFT, embed_dim, vocab.
// Defines: main.

const WORDS = 32u;  // words of 8 columns that a workgroup computes
const LANES = 4u;  // rows of the weight that it takes at a time
override SECTION: u32;  // rows of the weight of a section
override Y_ROW: u32 = VOCAB;  // numbers in a row of y: those of all parts of the matrix

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [sections][M][K / 4]
@group(0) @binding(1) var<storage, read> t_in: array<f32>;  // [M][Y_ROW]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, sections, those of the parts before, those of all

var<workgroup> lane_sums: array<vec4<f32>, 2u * WORDS * LANES>;  // [LANES][2][WORDS]

// Eight columns of four rows of the result.
struct Sums {
    left0: vec4<f32>, right0: vec4<f32>,
    left1: vec4<f32>, right1: vec4<f32>,
    left2: vec4<f32>, right2: vec4<f32>,
    left3: vec4<f32>, right3: vec4<f32>,
}

fn load_y(m: u32, row: u32) -> vec4<f32> {
    return vec4<f32>(t_in[min(m, sizes.x - 1u) * Y_ROW + row]);
}

// Add a row of the weight, times its number in each of four rows of y.
fn add_row(sums: ptr<function, Sums>, row: u32, k8: u32, first_m: u32) {
    let word = load_weight_word(row, k8);
    let scale = load_scale(row, k8 * 8u / group_size());
    let low = shifted_quad(word) * UNSHIFT * scale;
    let high = shifted_quad(word >> 16u) * UNSHIFT * scale;
    let a = load_y(first_m, row);
    let b = load_y(first_m + 1u, row);
    let c = load_y(first_m + 2u, row);
    let d = load_y(first_m + 3u, row);
    (*sums).left0 = fma(a, low, (*sums).left0);
    (*sums).right0 = fma(a, high, (*sums).right0);
    (*sums).left1 = fma(b, low, (*sums).left1);
    (*sums).right1 = fma(b, high, (*sums).right1);
    (*sums).left2 = fma(c, low, (*sums).left2);
    (*sums).right2 = fma(c, high, (*sums).right2);
    (*sums).left3 = fma(d, low, (*sums).left3);
    (*sums).right3 = fma(d, high, (*sums).right3);
}

// Add the lanes up for one row of the result, and store it at the quad `at`.
fn store_row(left: vec4<f32>, right: vec4<f32>, lane: u32, stored: bool, at: u32) {
    let place = lane / WORDS * 2u * WORDS + lane % WORDS;
    lane_sums[place] = left;
    lane_sums[place + WORDS] = right;
    workgroupBarrier();
    if stored {
        for (var half = 0u; half < 2u; half++) {
            let first = lane + half * WORDS;
            let one = lane_sums[first] + lane_sums[first + 2u * WORDS];
            let other = lane_sums[first + 4u * WORDS] + lane_sums[first + 6u * WORDS];
            t_out[at + half] = one + other;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let tiles_m = (sizes.x + 3u) / 4u;
    let words = embed_dim() / 8u;
    let tiles_k = (words + WORDS - 1u) / WORDS;
    let first_m = flat % tiles_m * 4u;
    let k8 = flat / tiles_m % tiles_k * WORDS + lane % WORDS;
    let section = flat / (tiles_m * tiles_k);
    let end = min(section * SECTION + SECTION, vocab());

    var sums: Sums;
    for (var row = section * SECTION + lane / WORDS; row < end; row += LANES) {
        add_row(&sums, row, min(k8, words - 1u), first_m);
    }
    let stores = lane < WORDS && k8 < words && section < sizes.y;
    let at = (((sizes.z + section) * sizes.x + first_m) * words + k8) * 2u;
    store_row(sums.left0, sums.right0, lane, stores, at);
    store_row(sums.left1, sums.right1, lane, stores && first_m + 1u < sizes.x, at + 2u * words);
    store_row(sums.left2, sums.right2, lane, stores && first_m + 2u < sizes.x, at + 4u * words);
    store_row(sums.left3, sums.right3, lane, stores && first_m + 3u < sizes.x, at + 6u * words);
}
