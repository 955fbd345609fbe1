// y = x · Wᵀ + bias for few rows of x and a weight in blocks of 8 rows × 4 columns, x as integers
// of 8 or 16 bits (linear/common/quantize.wgsl). Their products with the nibbles are exact
// integers.
//
// A team of TEAM invocations computes the 8 outputs of one strip of blocks for one row of x. A
// workgroup of INVOCATIONS has INVOCATIONS / TEAM teams, and computes TILES such sets of strips one
// after another. An invocation takes 4 neighbouring blocks (64 bytes, half a chunk of 32 columns)
// at a time.
//
// Grid: ⌈V / (8 · TILES · INVOCATIONS / TEAM)⌉ · M workgroups, folded over x and y. Those that
// differ only in their row of x are neighbours.
// Assumes: K % 32 == 0 and G % 32 == 0; TEAM is a power of two from 2 to 32; a workgroup has 32 ·
// INVOCATIONS bytes of memory besides those for x.
// In range: blocks are below K / 4 by the loop, and strips are clamped to the last; an output is
// stored only where its row is below V, and rows of x are below M by the grid's division.
//
// Needs: PLANES, vocab, prepare_x, embed_dim, load_weight_block, group_size, load_scales,
// load_words, load_scale_words, result_at, load_bias.
// Defines: INVOCATIONS, sizes, main.

override INVOCATIONS: u32 = 256u;  // of a workgroup
override TEAM: u32 = 32u;  // invocations that share a strip
override TILES: u32 = 1u;  // sets of strips of a workgroup, one after another
const X_ROWS = 1u;

@group(0) @binding(0) var<storage, read_write> t_out: array<f32>;  // [M][RESULT_ROW]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0

var<workgroup> slots: array<vec4<f32>, 2u * INVOCATIONS>;  // rows 0–3 of each lane, then 4–7

// Sums of products with the low and the high plane of x, for four rows.
struct Planes {
    low: vec4<i32>,
    high: vec4<i32>,
}

fn dot_four(words: vec4<u32>, x: u32) -> vec4<i32> {
    return vec4<i32>(
        dot4I8Packed(words.x, x),
        dot4I8Packed(words.y, x),
        dot4I8Packed(words.z, x),
        dot4I8Packed(words.w, x),
    );
}

fn add_block(sums: ptr<function, Planes>, rows: vec4<u32>, low: u32, high: u32) {
    (*sums).low += dot_four(rows, low);
    if PLANES == 2u {
        (*sums).high += dot_four(rows, high);
    }
}

fn total_of(sums: Planes) -> vec4<f32> {
    return vec4<f32>((sums.high << vec4<u32>(8u)) + sums.low);
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let m = flat % sizes.x;
    let teams = INVOCATIONS / TEAM;
    let last_strip = (vocab() + 7u) / 8u - 1u;
    let mask = vec4<u32>(0x0F0F0F0Fu);
    let x_row = prepare_x(m, lane);
    for (var i = 0u; i < TILES; i++) {
        let first_strip = (flat / sizes.x * TILES + i) * teams;
        let strip = min(first_strip + lane / TEAM, last_strip);
        var upper = vec4<f32>(0.0);
        var lower = vec4<f32>(0.0);
        for (var half_chunk = lane % TEAM; half_chunk < embed_dim() / 16u; half_chunk += TEAM) {
            let block0 = load_weight_block(strip, 4u * half_chunk);
            let block1 = load_weight_block(strip, 4u * half_chunk + 1u);
            let block2 = load_weight_block(strip, 4u * half_chunk + 2u);
            let block3 = load_weight_block(strip, 4u * half_chunk + 3u);
            let chunk = half_chunk / 2u;
            let group = chunk * 32u / group_size();
            let upper_scales = load_scales(8u * strip, group);
            let lower_scales = load_scales(8u * strip + 4u, group);
            let x0 = load_words(x_row, 2u * (half_chunk % 2u), chunk);
            let x1 = load_words(x_row, 2u * (half_chunk % 2u) + 1u, chunk);
            let scale_of_x = load_scale_words(x_row, chunk);
            let half_offset = select(scale_of_x.z, scale_of_x.w, half_chunk % 2u == 1u);
            let offset = vec4<i32>(bitcast<i32>(half_offset));
            var up = Planes(offset, vec4<i32>(0));
            var down = Planes(offset, vec4<i32>(0));
            add_block(&up, block0 & mask, x0.x, x0.z);
            add_block(&up, block1 & mask, x0.y, x0.w);
            add_block(&up, block2 & mask, x1.x, x1.z);
            add_block(&up, block3 & mask, x1.y, x1.w);
            add_block(&down, (block0 >> vec4<u32>(4u)) & mask, x0.x, x0.z);
            add_block(&down, (block1 >> vec4<u32>(4u)) & mask, x0.y, x0.w);
            add_block(&down, (block2 >> vec4<u32>(4u)) & mask, x1.x, x1.z);
            add_block(&down, (block3 >> vec4<u32>(4u)) & mask, x1.y, x1.w);
            let scale = bitcast<f32>(scale_of_x.x);
            // The scale of x first: the product of the two scales may be subnormal where this is not.
            upper = fma(upper_scales, total_of(up) * scale, upper);
            lower = fma(lower_scales, total_of(down) * scale, lower);
        }
        slots[lane] = upper;
        slots[INVOCATIONS + lane] = lower;
        workgroupBarrier();
        for (var output = lane; output < teams * 8u; output += INVOCATIONS) {
            let first_slot = (output / 4u % 2u) * INVOCATIONS + output / 8u * TEAM;
            var sum = 0.0;
            for (var j = 0u; j < TEAM; j++) {
                // Every four invocations start at another slot: no two read from one bank at a time.
                sum += slots[first_slot + (j + output / 4u) % TEAM][output % 4u];
            }
            let row = first_strip * 8u + output;
            if row < vocab() {
                t_out[result_at(m, row)] = sum + load_bias(row);
            }
        }
        workgroupBarrier();
    }
}
