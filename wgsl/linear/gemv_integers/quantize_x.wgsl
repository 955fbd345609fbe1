// x [M, K] to integers [M'][2 · PLANES][K / 32] and their scales [M'][K / 32]; M' is M rounded up
// to the rows that a workgroup of the product takes, and rows past M repeat the last.
//
// One invocation quantizes a chunk of 32 columns (linear/common/quantize.wgsl).
//
// Grid: ⌈M' · K / 32 / 64⌉ workgroups of 64 invocations, folded over x and y; invocations run along
// the chunks of a row first.
// In range: chunks past the last do nothing, and rows are clamped to M − 1.
//
// Needs: ScaleWords, PLANES, embed_dim, quantize.
// Defines: t_x, store_vector, store_scale, main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // [M'][2 · PLANES][K / 32]
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0
@group(0) @binding(6) var<storage, read_write> t_out_scales: array<ScaleWords>;  // [M'][K / 32], scale and offsets

fn store_vector(row: u32, v: u32, chunk: u32, words: vec4<u32>) {
    t_out[(row * 2u * PLANES + v) * (embed_dim() / 32u) + chunk] = words;
}

fn store_scale(row: u32, chunk: u32, words: ScaleWords) {
    t_out_scales[row * (embed_dim() / 32u) + chunk] = words;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunks = embed_dim() / 32u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    let row = flat / chunks;
    if row < sizes.y {
        let m = min(row, sizes.x - 1u);
        quantize((m * chunks + flat % chunks) * 8u, row, flat % chunks);
    }
}
