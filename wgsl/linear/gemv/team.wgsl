// A team of lanes for four neighbouring outputs: what the wide kernels for few rows of x share.
//
// A workgroup of INVOCATIONS holds INVOCATIONS / TEAM teams.  A team computes 4 outputs for up to
// X_ROWS rows of x: its lanes share those 4 rows of the weight, 32 columns (16 bytes) of each at a
// time, and every lane keeps sums of its own until the team adds them up in workgroup memory.
// What is unpacked once serves every row of x.
// Row tiles are folded over x and y; workgroups that differ only in their rows of x are neighbours,
// so that the weight comes from the cache for all but the first.
// Assumes K % 32 == 0, G % 32 == 0, TEAM a power of two from 4 to 32, X_ROWS one of 1, 2, 4, 8, and
// 16 · INVOCATIONS bytes of workgroup memory besides those for x.
//
// In range: rows of the weight are clamped to V − 1 here; the bodies ask for chunks below K / 32.
// An output is stored only where its row is below V and its row of x below M.

override INVOCATIONS: u32 = 256u;
override TEAM: u32 = 16u;
override X_ROWS: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, ...

var<workgroup> slots: array<vec4<f32>, INVOCATIONS>;

// Sums of a lane: a vector of the four outputs for each row of x.
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

// Rows past the last repeat it: they are computed for nothing, but read nothing outside.
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

// Add up what the teams' lanes have for row m of x, and store it.
fn store_row(sums: vec4<f32>, m: u32, tile: u32, lane: u32) {
    slots[lane] = sums;
    workgroupBarrier();
    let row = tile + lane;
    let is_inside = lane < INVOCATIONS / TEAM * 4u && row < vocab() && m < sizes.x;
    if is_inside {
        let first_slot = lane / 4u * TEAM;
        var sum = 0.0;
        for (var i = 0u; i < TEAM; i++) {
            // Every team starts at another slot: no two ask a memory bank at once.
            sum += slots[first_slot + (i + lane / 4u) % TEAM][lane % 4u];
        }
        t_out[m * vocab() + row] = sum + load_bias(row);
    }
    workgroupBarrier();
}

fn store_sums(sums: Sums, m: u32, tile: u32, lane: u32) {
    store_row(sums.first, m, tile, lane);
    if X_ROWS > 1u {
        store_row(sums.second, m + 1u, tile, lane);
    }
    if X_ROWS > 2u {
        store_row(sums.third, m + 2u, tile, lane);
        store_row(sums.fourth, m + 3u, tile, lane);
    }
    if X_ROWS > 4u {
        store_row(sums.fifth, m + 4u, tile, lane);
        store_row(sums.sixth, m + 5u, tile, lane);
        store_row(sums.seventh, m + 6u, tile, lane);
        store_row(sums.eighth, m + 7u, tile, lane);
    }
}
