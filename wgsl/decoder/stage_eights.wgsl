// Stages 16 columns of a tile of a weight: 128 times 8 columns of a row, one to four for each
// invocation. Neighbouring invocations take neighbouring rows, so that their stores fall into different
// banks of workgroup memory.
//
// Assumes: K is a multiple of 16.
// In range: rows are clamped to V − 1 and eights of columns to the last of a row.
//
// Needs: Eight, TILE_N, vocab, load_eight, embed_dim, TILE_M, first_quad, second_quad, weight_tile.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    first: Eight,
    second: Eight,
    third: Eight,
    fourth: Eight,
}

// What is fetched past the last column is never computed with.
fn fetch_eight(first_n: u32, k: u32, i: u32) -> Eight {
    let row = min(first_n + i % TILE_N, vocab() - 1u);
    return load_eight(row, min(k / 8u + i / TILE_N, embed_dim() / 8u - 1u));
}

fn fetch_weight(first_n: u32, k: u32, lane: u32) -> FetchedWeight {
    var fetched: FetchedWeight;
    fetched.first = fetch_eight(first_n, k, lane);
    if TILE_M < 128u {
        fetched.second = fetch_eight(first_n, k, lane + TILE_M);
    }
    if TILE_M < 64u {
        fetched.third = fetch_eight(first_n, k, lane + 2u * TILE_M);
        fetched.fourth = fetch_eight(first_n, k, lane + 3u * TILE_M);
    }
    return fetched;
}

fn stage_eight(i: u32, eight: Eight) {
    let at = i / TILE_N * 8u * (TILE_N / 4u) + i % TILE_N / 4u;
    let first = first_quad(eight);
    let second = second_quad(eight);
    for (var column = 0u; column < 4u; column++) {
        weight_tile[at + column * (TILE_N / 4u)][i % 4u] = first[column];
        weight_tile[at + (column + 4u) * (TILE_N / 4u)][i % 4u] = second[column];
    }
}

fn stage_weight(fetched: FetchedWeight, lane: u32) {
    stage_eight(lane, fetched.first);
    if TILE_M < 128u {
        stage_eight(lane + TILE_M, fetched.second);
    }
    if TILE_M < 64u {
        stage_eight(lane + 2u * TILE_M, fetched.third);
        stage_eight(lane + 3u * TILE_M, fetched.fourth);
    }
}
