// Stages 16 columns of the weight for gemm.wgsl from rows: one word (8 columns of a row) at a time.
// Neighbouring lanes take neighbouring rows: their stores fall into different banks.

fn stage_weight(first_n: u32, k: u32, lane: u32) {
    let octets = embed_dim() / 8u;
    for (var i = lane; i < TILE_N * (DEPTH / 8u); i += INVOCATIONS) {
        let n = i % TILE_N;
        let k8 = i / TILE_N;
        let row = min(first_n + n, vocab() - 1u);
        let column = min(k / 8u + k8, octets - 1u);
        let inside = k / 8u + k8 < octets;
        let scale = select(0.0, load_scale(row, column * 8u / group_size()), inside);
        let word = load_weight_octet(row, column);
        let low = shifted_quad(word) * (UNSHIFT * scale);
        let high = shifted_quad(word >> 16u) * (UNSHIFT * scale);
        weight_tile[n / 4u][8u * k8][n % 4u] = low.x;
        weight_tile[n / 4u][8u * k8 + 1u][n % 4u] = low.y;
        weight_tile[n / 4u][8u * k8 + 2u][n % 4u] = low.z;
        weight_tile[n / 4u][8u * k8 + 3u][n % 4u] = low.w;
        weight_tile[n / 4u][8u * k8 + 4u][n % 4u] = high.x;
        weight_tile[n / 4u][8u * k8 + 5u][n % 4u] = high.y;
        weight_tile[n / 4u][8u * k8 + 6u][n % 4u] = high.z;
        weight_tile[n / 4u][8u * k8 + 7u][n % 4u] = high.w;
    }
}
