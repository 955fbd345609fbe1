// Stages 64 columns of the weight for gemm_matrix.wgsl from rows: 16 bytes, 32 columns of a row, at a
// time.  A word's columns are stored in the order in which two nibbles lie 16 bits apart,
// 0 4 1 5 2 6 3 7, and so is x.

fn stage_weight(first_n: u32, step: u32, lane: u32) {
    let chunks = embed_dim() / 32u;
    for (var i = lane; i < TILE_N * (DEPTH / 32u); i += INVOCATIONS) {
        let n = i / (DEPTH / 32u);
        let k32 = i % (DEPTH / 32u);
        let row = min(first_n + n, vocab() - 1u);
        let chunk = min(step * (DEPTH / 32u) + k32, chunks - 1u);
        let inside = step * (DEPTH / 32u) + k32 < chunks;
        let words = load_weight_chunk(row, chunk);
        let scale = select(vec2<f16>(), scale_pair(row, chunk * 32u / group_size()), inside);
        for (var c = 0u; c < 4u; c++) {
            let low = words[c];
            let high = low >> 8u;
            stage_octet(
                n * PITCH + 32u * k32 + 8u * c,
                low_pair(low) * scale,
                high_pair(low) * scale,
                low_pair(high) * scale,
                high_pair(high) * scale,
            );
        }
    }
}
