// x [M, K] to 8-bit integers, columns first: words of four columns [K / 4][M'], scales and offsets
// [K / 32][M']. M' is M rounded up to the rows of a tile, and rows past M repeat the last.
//
// One invocation quantizes a chunk of 32 columns of a row (linear/common/quantize.wgsl).
//
// Grid: ⌈M' · K / 32 / 64⌉ workgroups of 64 invocations, folded over x and y; invocations run along
// the rows first, so that neighbours store neighbouring words.
// In range: chunks past the last do nothing, and rows are clamped to M − 1.
//
// Needs: ScaleWords, embed_dim, quantize.
// Defines: t_x, store_vector, store_scale, main.

@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;  // [K / 4][M'], a word of four columns
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0
@group(0) @binding(6) var<storage, read_write> t_out_scales: array<vec2<u32>>;  // [K / 32][M'], scale and offset

fn store_vector(row: u32, v: u32, chunk: u32, words: vec4<u32>) {
    for (var i = 0u; i < 4u; i++) {
        t_out[(chunk * 8u + 4u * v + i) * sizes.y + row] = words[i];
    }
}

fn store_scale(row: u32, chunk: u32, words: ScaleWords) {
    t_out_scales[chunk * sizes.y + row] = words.xy;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunks = embed_dim() / 32u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    let row = flat % sizes.y;
    let chunk = flat / sizes.y;
    if chunk < chunks {
        quantize((min(row, sizes.x - 1u) * chunks + chunk) * 8u, row, chunk);
    }
}
