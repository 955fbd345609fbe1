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
