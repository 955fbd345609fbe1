// Stages 16 columns of the weight for gemm.wgsl from blocks: one block (8 rows × 4 columns) at a
// time.  A block holds four neighbouring rows of a column in one vector, so nothing is transposed.

fn stage_weight(first_n: u32, first_k: u32, lane: u32) {
    let quads = embed_dim() / 4u;
    let strips = (vocab() + 7u) / 8u;
    for (var i = lane; i < (TILE_N / 8u) * (DEPTH / 4u); i += INVOCATIONS) {
        let strip = i / (DEPTH / 4u);
        let k4 = i % (DEPTH / 4u);
        let n8 = min(first_n / 8u + strip, strips - 1u);
        let column = min(first_k / 4u + k4, quads - 1u);
        let inside = first_k / 4u + k4 < quads;
        let group = column * 4u / group_size();
        let low_scales = select(vec4<f32>(0.0), load_scales(8u * n8, group), inside);
        let high_scales = select(vec4<f32>(0.0), load_scales(8u * n8 + 4u, group), inside);
        let block = load_weight_block(n8, column);
        for (var j = 0u; j < 4u; j++) {
            let bytes = block >> vec4<u32>(8u * j);
            let k = 4u * k4 + j;
            weight_tile[2u * strip][k] = (vec4<f32>(bytes & vec4<u32>(15u)) - 8.0) * low_scales;
            weight_tile[2u * strip + 1u][k] =
                (vec4<f32>((bytes >> vec4<u32>(4u)) & vec4<u32>(15u)) - 8.0) * high_scales;
        }
    }
}
