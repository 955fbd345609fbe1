// Stages 64 columns of the weight for gemm_matrix.wgsl from blocks: an invocation takes two
// neighbouring ones, 8 rows × 8 columns.  The same column of both makes a pair, so that a row's
// columns are stored in the order 0 4 1 5 2 6 3 7, as x is.

struct Part {
    left: vec4<u32>,
    right: vec4<u32>,
    low_scales: vec4<f16>,
    high_scales: vec4<f16>,
}

// What an invocation stages of columns 64·step …; past K, the scales are zero.
fn load_part(first_n: u32, step: u32, lane: u32) -> Part {
    let strips = (vocab() + 7u) / 8u;
    let octets = embed_dim() / 8u;
    let n8 = min(first_n / 8u + lane / 8u, strips - 1u);
    let wanted = 8u * step + lane % 8u;
    let octet = min(wanted, octets - 1u);
    let group = octet * 8u / group_size();
    let inside = wanted < octets;
    return Part(
        load_weight_block(n8, 2u * octet),
        load_weight_block(n8, 2u * octet + 1u),
        select(vec4<f16>(), scale_quad(8u * n8, group), inside),
        select(vec4<f16>(), scale_quad(8u * n8 + 4u, group), inside),
    );
}

// The scales of four neighbouring rows, the last one's for those past V.
fn scale_quad(row: u32, group: u32) -> vec4<f16> {
    let last = vocab() - 1u;
    return vec4<f16>(
        scale_pair(min(row, last), group).x,
        scale_pair(min(row + 1u, last), group).x,
        scale_pair(min(row + 2u, last), group).x,
        scale_pair(min(row + 3u, last), group).x,
    );
}

// Row r of both blocks, and row r + 4.
fn stage_rows(at: u32, left: u32, right: u32, low_scale: f16, high_scale: f16) {
    // Byte j of the left word and of the right one, 16 bits apart.
    let a = (left & 0xFFu) | (right << 16u);
    let b = ((left >> 8u) & 0xFFu) | ((right << 8u) & 0xFF0000u);
    let c = ((left >> 16u) & 0xFFu) | (right & 0xFF0000u);
    let d = (left >> 24u) | ((right >> 8u) & 0xFF0000u);
    let low = vec2<f16>(low_scale);
    let high = vec2<f16>(high_scale);
    stage_octet(at, low_pair(a) * low, low_pair(b) * low, low_pair(c) * low, low_pair(d) * low);
    stage_octet(
        at + 4u * PITCH,
        high_pair(a) * high,
        high_pair(b) * high,
        high_pair(c) * high,
        high_pair(d) * high,
    );
}

fn stage_part(part: Part, lane: u32) {
    let at = lane / 8u * 8u * PITCH + lane % 8u * 8u;
    stage_rows(at, part.left.x, part.right.x, part.low_scales.x, part.high_scales.x);
    stage_rows(at + PITCH, part.left.y, part.right.y, part.low_scales.y, part.high_scales.y);
    stage_rows(at + 2u * PITCH, part.left.z, part.right.z, part.low_scales.z, part.high_scales.z);
    stage_rows(at + 3u * PITCH, part.left.w, part.right.w, part.low_scales.w, part.high_scales.w);
}
