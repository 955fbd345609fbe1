// Stages 64 columns of the weight for gemm_matrix.wgsl from blocks: two neighbouring blocks, 8 rows ×
// 8 columns, at a time.  The same column of both makes a pair, so that a row's columns are stored in
// the order 0 4 1 5 2 6 3 7, as x is.

fn stage_weight(first_n: u32, step: u32, lane: u32) {
    let strips = (vocab() + 7u) / 8u;
    let octets = embed_dim() / 8u;
    for (var i = lane; i < (TILE_N / 8u) * (DEPTH / 8u); i += INVOCATIONS) {
        let strip = i / (DEPTH / 8u);
        let k8 = i % (DEPTH / 8u);
        let n8 = min(first_n / 8u + strip, strips - 1u);
        let octet = min(step * (DEPTH / 8u) + k8, octets - 1u);
        let inside = step * (DEPTH / 8u) + k8 < octets;
        let group = octet * 8u / group_size();
        let left = load_weight_block(n8, 2u * octet);
        let right = load_weight_block(n8, 2u * octet + 1u);
        for (var r = 0u; r < 4u; r++) {
            // Byte j of the left word and of the right one, 16 bits apart.
            let a = (left[r] & 0xFFu) | (right[r] << 16u);
            let b = ((left[r] >> 8u) & 0xFFu) | ((right[r] << 8u) & 0xFF0000u);
            let c = ((left[r] >> 16u) & 0xFFu) | (right[r] & 0xFF0000u);
            let d = (left[r] >> 24u) | ((right[r] >> 8u) & 0xFF0000u);
            let row = min(8u * n8 + r, vocab() - 1u);
            let next_row = min(8u * n8 + r + 4u, vocab() - 1u);
            let scale = select(vec2<f16>(), scale_pair(row, group), inside);
            let next_scale = select(vec2<f16>(), scale_pair(next_row, group), inside);
            let at = (8u * strip + r) * PITCH + 8u * k8;
            stage_octet(
                at,
                low_pair(a) * scale,
                low_pair(b) * scale,
                low_pair(c) * scale,
                low_pair(d) * scale,
            );
            stage_octet(
                at + 4u * PITCH,
                high_pair(a) * next_scale,
                high_pair(b) * next_scale,
                high_pair(c) * next_scale,
                high_pair(d) * next_scale,
            );
        }
    }
}
