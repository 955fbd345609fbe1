// Stages 16 columns of a tile of the weight from blocks of 8 rows × 4 columns: 32 blocks, one for
// each of the first 32 invocations. A block holds four neighbouring rows of a column in one vector,
// so nothing is transposed.
//
// In range: strips and blocks are clamped to the last.
//
// Needs: embed_dim, vocab, DEPTH, group_size, load_weight_block, load_scales, weight_tile, TILE_N.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    block: vec4<u32>,
    upper_scales: vec4<f32>,
    lower_scales: vec4<f32>,
}

fn fetch_weight(first_n: u32, k: u32, lane: u32) -> FetchedWeight {
    let quads = embed_dim() / 4u;
    let strips = (vocab() + 7u) / 8u;
    let strip = min(first_n / 8u + lane / (DEPTH / 4u), strips - 1u);
    let k4 = k / 4u + lane % (DEPTH / 4u);
    let column = min(k4, quads - 1u);
    let group = column * 4u / group_size();
    return FetchedWeight(
        load_weight_block(strip, column),
        select(vec4<f32>(0.0), load_scales(8u * strip, group), k4 < quads),
        select(vec4<f32>(0.0), load_scales(8u * strip + 4u, group), k4 < quads),
    );
}

fn stage_column(fetched: FetchedWeight, at: u32, shift: u32) {
    let bytes = fetched.block >> vec4<u32>(shift);
    let upper = vec4<f32>(bytes & vec4<u32>(15u)) - 8.0;
    let lower = vec4<f32>((bytes >> vec4<u32>(4u)) & vec4<u32>(15u)) - 8.0;
    weight_tile[at] = upper * fetched.upper_scales;
    weight_tile[at + 1u] = lower * fetched.lower_scales;
}

fn stage_weight(fetched: FetchedWeight, lane: u32) {
    if lane < TILE_N / 8u * (DEPTH / 4u) {
        let at = lane % (DEPTH / 4u) * 4u * (TILE_N / 4u) + lane / (DEPTH / 4u) * 2u;
        stage_column(fetched, at, 0u);
        stage_column(fetched, at + TILE_N / 4u, 8u);
        stage_column(fetched, at + 2u * (TILE_N / 4u), 16u);
        stage_column(fetched, at + 3u * (TILE_N / 4u), 24u);
    }
}
