// Stages a chunk of 32 columns of a tile of the weight from rows: 256 words of 8 columns of a row,
// two or four for each invocation, each split into its even and its odd columns.
//
// In range: rows are clamped to V − 1 and chunks to the last.
//
// Needs: TILE_N, vocab, load_weight_word, embed_dim, TILE_M, weight_tile.
// Defines: fetch_weight, stage_weight.

fn fetch_word(first_n: u32, chunk: u32, i: u32) -> u32 {
    let row = min(first_n + i % TILE_N, vocab() - 1u);
    return load_weight_word(row, min(chunk, embed_dim() / 32u - 1u) * 4u + i / TILE_N);
}

fn fetch_weight(first_n: u32, chunk: u32, lane: u32) -> vec4<u32> {
    var words = vec4<u32>(0u);
    words.x = fetch_word(first_n, chunk, lane);
    words.y = fetch_word(first_n, chunk, lane + TILE_M);
    if TILE_M < 128u {
        words.z = fetch_word(first_n, chunk, lane + 2u * TILE_M);
        words.w = fetch_word(first_n, chunk, lane + 3u * TILE_M);
    }
    return words;
}

fn stage_word(i: u32, word: u32) {
    let at = i / TILE_N * 2u * (TILE_N / 4u) + i % TILE_N / 4u;
    weight_tile[at][i % 4u] = word & 0x0F0F0F0Fu;
    weight_tile[at + TILE_N / 4u][i % 4u] = (word >> 4u) & 0x0F0F0F0Fu;
}

fn stage_weight(words: vec4<u32>, lane: u32) {
    stage_word(lane, words.x);
    stage_word(lane + TILE_M, words.y);
    if TILE_M < 128u {
        stage_word(lane + 2u * TILE_M, words.z);
        stage_word(lane + 3u * TILE_M, words.w);
    }
}
