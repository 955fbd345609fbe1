// Stages 64 columns of a tile of the weight from blocks: an invocation takes two neighbouring
// blocks, 8 rows × 8 columns. The same column of both makes a pair, so that a row's columns are
// stored in the order 0 4 1 5 2 6 3 7, and so are those of x.
//
// Needs: vocab, embed_dim, group_size, load_weight_block, scale_pair, stage_eight, low_pair, PITCH,
// high_pair.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    left: vec4<u32>,
    right: vec4<u32>,
    low_scales: vec4<f16>,
    high_scales: vec4<f16>,
}

// Fetch what an invocation stages of columns 64·step …; past K, the scales are zero.
fn fetch_weight(first_n: u32, step: u32, lane: u32) -> FetchedWeight {
    let strips = (vocab() + 7u) / 8u;
    let words = embed_dim() / 8u;
    let n8 = min(first_n / 8u + lane / 8u, strips - 1u);
    let wanted = 8u * step + lane % 8u;
    let k8 = min(wanted, words - 1u);
    let group = k8 * 8u / group_size();
    let inside = wanted < words;
    return FetchedWeight(
        load_weight_block(n8, 2u * k8),
        load_weight_block(n8, 2u * k8 + 1u),
        select(vec4<f16>(), scale_quad(8u * n8, group), inside),
        select(vec4<f16>(), scale_quad(8u * n8 + 4u, group), inside),
    );
}

// Return the scales of four neighbouring rows; rows past V get that of the last.
fn scale_quad(row: u32, group: u32) -> vec4<f16> {
    let last = vocab() - 1u;
    return vec4<f16>(
        scale_pair(min(row, last), group).x,
        scale_pair(min(row + 1u, last), group).x,
        scale_pair(min(row + 2u, last), group).x,
        scale_pair(min(row + 3u, last), group).x,
    );
}

// Stage row r of both blocks, and row r + 4.
fn stage_rows(at: u32, left: u32, right: u32, low_scale: f16, high_scale: f16) {
    // Byte j of the left word and of the right one, 16 bits apart.
    let a = (left & 0xFFu) | (right << 16u);
    let b = ((left >> 8u) & 0xFFu) | ((right << 8u) & 0xFF0000u);
    let c = ((left >> 16u) & 0xFFu) | (right & 0xFF0000u);
    let d = (left >> 24u) | ((right >> 8u) & 0xFF0000u);
    let low = vec2<f16>(low_scale);
    let high = vec2<f16>(high_scale);
    stage_eight(at, low_pair(a) * low, low_pair(b) * low, low_pair(c) * low, low_pair(d) * low);
    stage_eight(
        at + 4u * PITCH,
        high_pair(a) * high,
        high_pair(b) * high,
        high_pair(c) * high,
        high_pair(d) * high,
    );
}

fn stage_weight(weight: FetchedWeight, lane: u32) {
    let at = lane / 8u * 8u * PITCH + lane % 8u * 8u;
    stage_rows(at, weight.left.x, weight.right.x, weight.low_scales.x, weight.high_scales.x);
    stage_rows(at + PITCH, weight.left.y, weight.right.y, weight.low_scales.y, weight.high_scales.y);
    let third = at + 2u * PITCH;
    let fourth = at + 3u * PITCH;
    stage_rows(third, weight.left.z, weight.right.z, weight.low_scales.z, weight.high_scales.z);
    stage_rows(fourth, weight.left.w, weight.right.w, weight.low_scales.w, weight.high_scales.w);
}
