// Rows of x that a pass has quantized before (quantize_x.wgsl).
//
// In range: the host pads the rows of x to a multiple of X_ROWS.
//
// Needs: ScaleWords, embed_dim.
// Defines: PLANES, load_scale_words, prepare_x, load_words.

@group(0) @binding(1) var<storage, read> t_x: array<vec4<u32>>;  // [M'][2 · PLANES][K / 32]
@group(0) @binding(6) var<storage, read> t_x_scales: array<ScaleWords>;  // [M'][K / 32], scale and offsets

override PLANES: u32 = 2u;  // bytes of an integer: 1 or 2

fn load_vector(row: u32, v: u32, chunk: u32) -> vec4<u32> {
    return t_x[(row * 2u * PLANES + v) * (embed_dim() / 32u) + chunk];
}

fn load_scale_words(row: u32, chunk: u32) -> ScaleWords {
    return t_x_scales[row * (embed_dim() / 32u) + chunk];
}

fn prepare_x(m: u32, lane: u32) -> u32 {
    return m;
}

// Columns 8·w … of a chunk: words of the first and of the second columns in the low plane, then in
// the high plane, if there is one.
fn load_words(row: u32, w: u32, chunk: u32) -> vec4<u32> {
    if PLANES == 2u {
        return load_vector(row, w, chunk);
    }
    let both = load_vector(row, w / 2u, chunk);
    return vec4<u32>(select(both.xy, both.zw, w % 2u == 1u), 0u, 0u);
}
