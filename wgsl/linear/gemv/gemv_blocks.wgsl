// y = x · Wᵀ + bias for few rows of x and a weight in blocks of 8 rows × 4 columns.
//
// A team of TEAM invocations computes the 8 outputs of one strip of blocks for one row of x. A
// workgroup of 128 invocations has 128 / TEAM teams. An invocation takes LANE_BLOCKS neighbouring
// blocks (16 bytes each) at a time and holds 8 sums; the sums of a team meet in workgroup memory.
//
// Grid: ⌈V / (8 · 128 / TEAM)⌉ · M workgroups, folded over x and y. Those that differ only in their
// row of x are neighbours, so that the weight comes from the cache for all but the first.
// Assumes: TEAM is a power of two of at most 128, LANE_BLOCKS is even, G and K are multiples of 4 ·
// LANE_BLOCKS.
// In range: strips past the last are skipped, and blocks are below K / 4, which LANE_BLOCKS
// divides; rows of x are below M by the grid's division; an output is stored only where its row is
// below V.
//
// Needs: vocab, embed_dim, load_weight_block, group_size, load_scales, result_at, load_bias.
// Defines: main.

override TEAM: u32 = 32u;  // invocations that share a strip
override LANE_BLOCKS: u32 = 4u;  // blocks that an invocation takes at a time

const LANES = 128u;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [M][RESULT_ROW]
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, 0, 0, 0

var<workgroup> slots: array<f32, 1024>;  // [8 rows][LANES]

// Return (n − 8)·2^p of the nibbles at bit p of four words.
fn shifted_rows(words: vec4<u32>, p: u32) -> vec4<f32> {
    let values = (words & vec4<u32>(15u << p)) | vec4<u32>(0x4B000000u);
    return bitcast<vec4<f32>>(values) - bitcast<f32>(0x4B000000u + (8u << p));
}

// Return the four columns of a block times x, for rows 0–3. The power of two goes to x, exactly.
fn dot_low(block: vec4<u32>, x: vec4<f32>) -> vec4<f32> {
    let scaled = x * vec4<f32>(1.0, 0.00390625, 0.0000152587890625, 0.000244140625);
    var sum = shifted_rows(block, 0u) * scaled.x;
    sum = fma(shifted_rows(block, 8u), vec4<f32>(scaled.y), sum);
    sum = fma(shifted_rows(block, 16u), vec4<f32>(scaled.z), sum);
    return fma(shifted_rows(block >> vec4<u32>(12u), 12u), vec4<f32>(scaled.w), sum);
}

// Return the same for rows 4–7.
fn dot_high(block: vec4<u32>, x: vec4<f32>) -> vec4<f32> {
    let scaled = x * vec4<f32>(0.0625, 0.000244140625, 0.00390625, 0.0000152587890625);
    let upper = block >> vec4<u32>(12u);
    var sum = shifted_rows(block, 4u) * scaled.x;
    sum = fma(shifted_rows(block, 12u), vec4<f32>(scaled.y), sum);
    sum = fma(shifted_rows(upper, 8u), vec4<f32>(scaled.z), sum);
    return fma(shifted_rows(upper, 16u), vec4<f32>(scaled.w), sum);
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let teams = LANES / TEAM;
    let strips = (vocab() + 7u) / 8u;
    let blocks = embed_dim() / 4u;
    let flat = workgroup.y * grid.x + workgroup.x;
    let m = flat % sizes.x;
    let first_strip = flat / sizes.x * teams;
    let n8 = first_strip + lane / TEAM;

    var low = vec4<f32>(0.0);
    var high = vec4<f32>(0.0);
    var k4 = lane % TEAM * LANE_BLOCKS;
    while k4 < blocks && n8 < strips {
        var low_part = vec4<f32>(0.0);
        var high_part = vec4<f32>(0.0);
        for (var i = 0u; i < LANE_BLOCKS; i += 2u) {
            let first = load_weight_block(n8, k4 + i);
            let second = load_weight_block(n8, k4 + i + 1u);
            let first_x = t_x[m * blocks + k4 + i];
            let second_x = t_x[m * blocks + k4 + i + 1u];
            low_part += dot_low(first, first_x) + dot_low(second, second_x);
            high_part += dot_high(first, first_x) + dot_high(second, second_x);
        }
        let group = k4 * 4u / group_size();
        low = fma(load_scales(8u * n8, group), low_part, low);
        high = fma(load_scales(8u * n8 + 4u, group), high_part, high);
        k4 += TEAM * LANE_BLOCKS;
    }
    for (var r = 0u; r < 4u; r++) {
        slots[r * LANES + lane] = low[r];
        slots[(r + 4u) * LANES + lane] = high[r];
    }
    workgroupBarrier();

    let outputs = teams * 8u;
    for (var output = lane; output < outputs; output += LANES) {
        let slot = (output % 8u) * LANES + output / 8u * TEAM;
        var sum = 0.0;
        for (var i = 0u; i < TEAM; i++) {
            // Each invocation starts at another slot: no two read from one memory bank at a time.
            sum += slots[slot + (i + lane) % TEAM];
        }
        let row = first_strip * 8u + output;
        if row < vocab() {
            t_out[result_at(m, row)] = sum + load_bias(row);
        }
    }
}
