// Stages 16 columns of a tile of a weight in half precision: 128 times 8 columns of a row, one to
// four for each invocation. Neighbouring invocations take neighbouring rows, so that their stores
// fall into different banks of workgroup memory.
//
// Assumes: K is a multiple of 8.
// In range: rows are clamped to V − 1 and eights of columns to the last of a row.
//
// Needs: embed_dim, TILE_N, vocab, TILE_M, two_halves, weight_tile.
// Defines: fetch_weight, stage_weight.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 8], eight halves each

struct FetchedWeight {
    first: vec4<u32>,
    second: vec4<u32>,
    third: vec4<u32>,
    fourth: vec4<u32>,
}

fn fetch_eight(first_n: u32, k: u32, i: u32) -> vec4<u32> {
    let eights = embed_dim() / 8u;
    let row = min(first_n + i % TILE_N, vocab() - 1u);
    let k8 = k / 8u + i / TILE_N;
    let value = t_weight[row * eights + min(k8, eights - 1u)];
    return select(vec4<u32>(0u), value, k8 < eights);
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

fn stage_eight(i: u32, halves: vec4<u32>) {
    let at = i / TILE_N * 8u * (TILE_N / 4u) + i % TILE_N / 4u;
    for (var pair = 0u; pair < 4u; pair++) {
        let place = at + 2u * pair * (TILE_N / 4u);
        let values = two_halves(halves[pair]);
        weight_tile[place][i % 4u] = values.x;
        weight_tile[place + TILE_N / 4u][i % 4u] = values.y;
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
