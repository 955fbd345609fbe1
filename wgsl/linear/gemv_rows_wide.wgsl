// y = x · Wᵀ + bias for few rows of x, weight in rows.
//
// A workgroup of 128 invocations holds 128 / TEAM teams; a team computes TEAM_ROWS neighbouring
// outputs of one row of x.  Its lanes share each row of the weight, 32 columns (16 bytes) at a
// time, keep their 32 values of x in registers over all rows, and add into a slot of their own in
// workgroup memory; the slots of a row are summed at the end.  Four rows are loaded while the four
// before them are computed.
// Workgroups are folded over x and y; those that differ only in the row of x are neighbours, so
// that the weight comes from the cache for all but the first.
// Assumes K % 32 == 0 and G % 32 == 0, TEAM a power of two from 4 to 128, TEAM_ROWS a multiple of
// 4, and 512 · TEAM_ROWS bytes of workgroup memory.

override TEAM: u32 = 32u;
override TEAM_ROWS: u32 = 16u;

const LANES = 128u;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // rows of x, 0, 0, 0

// The sums of four neighbouring rows in one vector.
var<workgroup> slots: array<vec4<f32>, TEAM_ROWS / 4u * LANES>;  // [TEAM_ROWS / 4][LANES]

// 32 columns of x, in the order in which nibbles are unpacked.
struct Columns {
    a0: vec4<f32>, b0: vec4<f32>,
    a1: vec4<f32>, b1: vec4<f32>,
    a2: vec4<f32>, b2: vec4<f32>,
    a3: vec4<f32>, b3: vec4<f32>,
}

fn load_columns(at: u32) -> Columns {
    let x0 = t_x[at];
    let x1 = t_x[at + 1u];
    let x2 = t_x[at + 2u];
    let x3 = t_x[at + 3u];
    let x4 = t_x[at + 4u];
    let x5 = t_x[at + 5u];
    let x6 = t_x[at + 6u];
    let x7 = t_x[at + 7u];
    return Columns(
        arrange_first(x0, x1), arrange_second(x0, x1),
        arrange_first(x2, x3), arrange_second(x2, x3),
        arrange_first(x4, x5), arrange_second(x4, x5),
        arrange_first(x6, x7), arrange_second(x6, x7),
    );
}

fn dot_chunk(chunk: vec4<u32>, x: Columns) -> f32 {
    var sums = unpack_first(chunk.x) * x.a0;
    sums = fma(unpack_second(chunk.x), x.b0, sums);
    sums = fma(unpack_first(chunk.y), x.a1, sums);
    sums = fma(unpack_second(chunk.y), x.b1, sums);
    sums = fma(unpack_first(chunk.z), x.a2, sums);
    sums = fma(unpack_second(chunk.z), x.b2, sums);
    sums = fma(unpack_first(chunk.w), x.a3, sums);
    sums = fma(unpack_second(chunk.w), x.b3, sums);
    return total(sums) * UNSCALE;
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
fn load_rows(row: u32, chunk: u32, group: u32) -> Rows {
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

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let teams = LANES / TEAM;
    let outputs = teams * TEAM_ROWS;
    let flat = workgroup.y * grid.x + workgroup.x;
    let m = flat % sizes.x;
    let tile = flat / sizes.x * outputs;
    let first_row = tile + lane / TEAM * TEAM_ROWS;
    let chunks = embed_dim() / 32u;

    for (var r4 = 0u; r4 < TEAM_ROWS / 4u; r4++) {
        slots[r4 * LANES + lane] = vec4<f32>(0.0);
    }
    // The last workgroup of a folded grid may lie past the result; it computes nothing.
    var chunk = lane % TEAM;
    while chunk < chunks && first_row < vocab() {
        let x = load_columns((m * chunks + chunk) * 8u);
        let group = chunk * 32u / group_size();
        var rows = load_rows(first_row, chunk, group);
        for (var r4 = 0u; r4 < TEAM_ROWS / 4u; r4++) {
            let next_rows = load_rows(first_row + 4u * r4 + 4u, chunk, group);
            let dots = vec4<f32>(
                dot_chunk(rows.a, x),
                dot_chunk(rows.b, x),
                dot_chunk(rows.c, x),
                dot_chunk(rows.d, x),
            );
            let slot = r4 * LANES + lane;
            slots[slot] = fma(rows.scales, dots, slots[slot]);
            rows = next_rows;
        }
        chunk += TEAM;
    }
    workgroupBarrier();

    for (var output = lane; output < outputs; output += LANES) {
        let r = output % TEAM_ROWS;
        let first_slot = r / 4u * LANES + output / TEAM_ROWS * TEAM;
        var sums = vec4<f32>(0.0);
        for (var i = 0u; i < TEAM; i += 4u) {
            // Every four invocations start at another slot: no two ask a memory bank at once.
            let at = i + lane / 4u;
            sums += vec4<f32>(
                slots[first_slot + at % TEAM][r % 4u],
                slots[first_slot + (at + 1u) % TEAM][r % 4u],
                slots[first_slot + (at + 2u) % TEAM][r % 4u],
                slots[first_slot + (at + 3u) % TEAM][r % 4u],
            );
        }
        let row = tile + output;
        if row < vocab() {
            t_out[m * vocab() + row] = total(sums) + load_bias(row);
        }
    }
}
