// ---- shape/overrides.wgsl

// The shape of the matrix as pipeline constants, so that the compiler turns divisions by K and G
// into shifts and multiplications.
//
// Defines: VOCAB, embed_dim, group_size, vocab.

override EMBED_DIM: u32;  // K
override GROUP_SIZE: u32;  // G
override VOCAB: u32;  // V

fn embed_dim() -> u32 {
    return EMBED_DIM;
}

fn group_size() -> u32 {
    return GROUP_SIZE;
}

fn vocab() -> u32 {
    return VOCAB;
}

// ---- linear/gemm/transpose_x.wgsl

// x [M, K] to [K, M']; M' is M rounded up to the rows of a tile of gemm.wgsl, and rows past M are
// zero.
//
// One invocation moves a square of 4 rows × 4 columns.
//
// Grid: ⌈M' / 4 · K / 4 / 64⌉ workgroups of 64 invocations, folded over x and y; invocations run
// along the rows first.
// In range: rows are clamped to M − 1, and squares past the last column do nothing.
//
// Needs: embed_dim.
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // [K][M' / 4], a vector of four rows
@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // M, M', 0, 0

fn load_row(m: u32, k4: u32) -> vec4<f32> {
    let value = t_x[min(m, sizes.x - 1u) * (embed_dim() / 4u) + k4];
    return select(vec4<f32>(0.0), value, m < sizes.x);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let width = sizes.y / 4u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    let m4 = flat % width;
    let k4 = flat / width;
    if k4 >= embed_dim() / 4u {
        return;
    }
    let a = load_row(4u * m4, k4);
    let b = load_row(4u * m4 + 1u, k4);
    let c = load_row(4u * m4 + 2u, k4);
    let d = load_row(4u * m4 + 3u, k4);
    t_out[(4u * k4) * width + m4] = vec4<f32>(a.x, b.x, c.x, d.x);
    t_out[(4u * k4 + 1u) * width + m4] = vec4<f32>(a.y, b.y, c.y, d.y);
    t_out[(4u * k4 + 2u) * width + m4] = vec4<f32>(a.z, b.z, c.z, d.z);
    t_out[(4u * k4 + 3u) * width + m4] = vec4<f32>(a.w, b.w, c.w, d.w);
}
