// Stages 16 columns of a tile of the weight from rows: 128 words of 8 columns of a row, one to four
// for each invocation. Neighbouring invocations take neighbouring rows, so that their stores fall
// into different banks of workgroup memory.
//
// In range: rows are clamped to V − 1 and words to the last of a row.
//
// Needs: embed_dim, TILE_N, vocab, load_scale, group_size, load_weight_word, TILE_M, shifted_quad,
// UNSHIFT, weight_tile.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    words: vec4<u32>,
    scales: vec4<f32>,
}

fn fetch_word(first_n: u32, k: u32, i: u32, at: ptr<function, FetchedWeight>, turn: u32) {
    let words = embed_dim() / 8u;
    let row = min(first_n + i % TILE_N, vocab() - 1u);
    let k8 = k / 8u + i / TILE_N;
    let column = min(k8, words - 1u);
    let scale = load_scale(row, column * 8u / group_size());
    (*at).words[turn] = load_weight_word(row, column);
    (*at).scales[turn] = select(0.0, scale, k8 < words);
}

fn fetch_weight(first_n: u32, k: u32, lane: u32) -> FetchedWeight {
    var fetched: FetchedWeight;
    fetch_word(first_n, k, lane, &fetched, 0u);
    if TILE_M < 128u {
        fetch_word(first_n, k, lane + TILE_M, &fetched, 1u);
    }
    if TILE_M < 64u {
        fetch_word(first_n, k, lane + 2u * TILE_M, &fetched, 2u);
        fetch_word(first_n, k, lane + 3u * TILE_M, &fetched, 3u);
    }
    return fetched;
}

fn stage_word(i: u32, word: u32, scale: f32) {
    // Not UNSHIFT * scale first: that is subnormal, and rounded, for a small scale.
    let low = (shifted_quad(word) * UNSHIFT) * scale;
    let high = (shifted_quad(word >> 16u) * UNSHIFT) * scale;
    let at = i / TILE_N * 8u * (TILE_N / 4u) + i % TILE_N / 4u;
    weight_tile[at][i % 4u] = low.x;
    weight_tile[at + TILE_N / 4u][i % 4u] = low.y;
    weight_tile[at + 2u * (TILE_N / 4u)][i % 4u] = low.z;
    weight_tile[at + 3u * (TILE_N / 4u)][i % 4u] = low.w;
    weight_tile[at + 4u * (TILE_N / 4u)][i % 4u] = high.x;
    weight_tile[at + 5u * (TILE_N / 4u)][i % 4u] = high.y;
    weight_tile[at + 6u * (TILE_N / 4u)][i % 4u] = high.z;
    weight_tile[at + 7u * (TILE_N / 4u)][i % 4u] = high.w;
}

fn stage_weight(fetched: FetchedWeight, lane: u32) {
    stage_word(lane, fetched.words.x, fetched.scales.x);
    if TILE_M < 128u {
        stage_word(lane + TILE_M, fetched.words.y, fetched.scales.y);
    }
    if TILE_M < 64u {
        stage_word(lane + 2u * TILE_M, fetched.words.z, fetched.scales.z);
        stage_word(lane + 3u * TILE_M, fetched.words.w, fetched.scales.w);
    }
}
