// y = x · Wᵀ + bias for few rows of x, weight in rows.
//
// A workgroup of 128 invocations holds 128 / TEAM teams; a team computes TEAM_ROWS neighbouring
// outputs of one row of x.  Its lanes share each row of the weight, 32 columns (16 bytes) at a
// time, keep their 32 values of x in registers over all rows, and add into a slot of their own in
// workgroup memory; the slots of a row are summed at the end.  Two rows are in flight.
// Workgroups are folded over x and y; those that differ only in the row of x are neighbours, so
// that the weight comes from the cache for all but the first.
// Assumes K % 32 == 0 and G % 32 == 0, TEAM a power of two up to 128, TEAM_ROWS even, up to 16.

override TEAM: u32 = 32u;
override TEAM_ROWS: u32 = 16u;

const LANES = 128u;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // rows of x, 0, 0, 0

var<workgroup> slots: array<f32, 2048>;  // [TEAM_ROWS][LANES]

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
    let team = lane / TEAM;
    let first_row = tile + team * TEAM_ROWS;
    let chunks = embed_dim() / 32u;

    for (var r = 0u; r < TEAM_ROWS; r++) {
        slots[r * LANES + lane] = 0.0;
    }
    // The last workgroup of a folded grid may lie past the result; it computes nothing.
    let last_row = vocab() - 1u;
    var chunk = lane % TEAM;
    while chunk < chunks && first_row <= last_row {
        let x_at = (m * chunks + chunk) * 8u;
        let x0 = t_x[x_at] * UNSHIFT;
        let x1 = t_x[x_at + 1u] * UNSHIFT;
        let x2 = t_x[x_at + 2u] * UNSHIFT;
        let x3 = t_x[x_at + 3u] * UNSHIFT;
        let x4 = t_x[x_at + 4u] * UNSHIFT;
        let x5 = t_x[x_at + 5u] * UNSHIFT;
        let x6 = t_x[x_at + 6u] * UNSHIFT;
        let x7 = t_x[x_at + 7u] * UNSHIFT;
        let group = chunk * 32u / group_size();
        for (var r = 0u; r < TEAM_ROWS; r += 2u) {
            let row_a = min(first_row + r, last_row);
            let row_b = min(first_row + r + 1u, last_row);
            let a = load_weight_chunk(row_a, chunk);
            let b = load_weight_chunk(row_b, chunk);
            let scale_a = load_scale(row_a, group);
            let scale_b = load_scale(row_b, group);
            var sum_a = shifted_quad(a.x) * x0;
            var sum_b = shifted_quad(b.x) * x0;
            sum_a = fma(shifted_quad(a.x >> 16u), x1, sum_a);
            sum_b = fma(shifted_quad(b.x >> 16u), x1, sum_b);
            sum_a = fma(shifted_quad(a.y), x2, sum_a);
            sum_b = fma(shifted_quad(b.y), x2, sum_b);
            sum_a = fma(shifted_quad(a.y >> 16u), x3, sum_a);
            sum_b = fma(shifted_quad(b.y >> 16u), x3, sum_b);
            sum_a = fma(shifted_quad(a.z), x4, sum_a);
            sum_b = fma(shifted_quad(b.z), x4, sum_b);
            sum_a = fma(shifted_quad(a.z >> 16u), x5, sum_a);
            sum_b = fma(shifted_quad(b.z >> 16u), x5, sum_b);
            sum_a = fma(shifted_quad(a.w), x6, sum_a);
            sum_b = fma(shifted_quad(b.w), x6, sum_b);
            sum_a = fma(shifted_quad(a.w >> 16u), x7, sum_a);
            sum_b = fma(shifted_quad(b.w >> 16u), x7, sum_b);
            slots[r * LANES + lane] += scale_a * total(sum_a);
            slots[(r + 1u) * LANES + lane] += scale_b * total(sum_b);
        }
        chunk += TEAM;
    }
    workgroupBarrier();

    for (var output = lane; output < outputs; output += LANES) {
        let slot = (output % TEAM_ROWS) * LANES + output / TEAM_ROWS * TEAM;
        var sum = 0.0;
        for (var i = 0u; i < TEAM; i++) {
            // Each invocation starts at another slot, so that a memory bank is asked once a turn.
            sum += slots[slot + (i + lane) % TEAM];
        }
        let row = tile + output;
        if row < vocab() {
            t_out[m * vocab() + row] = sum + load_bias(row);
        }
    }
}
