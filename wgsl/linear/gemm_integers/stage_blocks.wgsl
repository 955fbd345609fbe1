// Stages a chunk of 32 columns of a tile of the weight from blocks of 8 rows × 4 columns: 64
// blocks, one for each of the first 64 invocations.
//
// In range: strips and chunks are clamped to the last.
//
// Needs: WORDS, vocab, load_weight_block, embed_dim, TILE_N, weight_tile.
// Defines: fetch_weight, stage_weight.

fn fetch_weight(first_n: u32, chunk: u32, lane: u32) -> vec4<u32> {
    let strip = min(first_n / 8u + lane / WORDS, (vocab() + 7u) / 8u - 1u);
    return load_weight_block(strip, min(chunk, embed_dim() / 32u - 1u) * WORDS + lane % WORDS);
}

fn stage_weight(block: vec4<u32>, lane: u32) {
    if lane < TILE_N / 8u * WORDS {
        let at = lane % WORDS * (TILE_N / 4u) + lane / WORDS * 2u;
        weight_tile[at] = block & vec4<u32>(0x0F0F0F0Fu);
        weight_tile[at + 1u] = (block >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu);
    }
}
