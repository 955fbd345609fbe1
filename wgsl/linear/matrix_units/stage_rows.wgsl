// Stages 64 columns of the weight for gemm_matrix.wgsl from rows: an invocation takes 32 columns
// (16 bytes) of two rows, 64 apart.  A word's columns are stored in the order in which two nibbles
// lie 16 bits apart, 0 4 1 5 2 6 3 7, and so is x.

struct Part {
    first: vec4<u32>,
    second: vec4<u32>,
    first_scale: vec2<f16>,
    second_scale: vec2<f16>,
}

// What an invocation stages of columns 64·step …; past K, the scale is zero.
fn load_part(first_n: u32, step: u32, lane: u32) -> Part {
    let chunks = embed_dim() / 32u;
    let row = min(first_n + lane / 2u, vocab() - 1u);
    let next_row = min(first_n + lane / 2u + 64u, vocab() - 1u);
    let wanted = 2u * step + lane % 2u;
    let chunk = min(wanted, chunks - 1u);
    let group = chunk * 32u / group_size();
    let inside = wanted < chunks;
    return Part(
        load_weight_chunk(row, chunk),
        load_weight_chunk(next_row, chunk),
        select(vec2<f16>(), scale_pair(row, group), inside),
        select(vec2<f16>(), scale_pair(next_row, group), inside),
    );
}

fn stage_word(at: u32, word: u32, scale: vec2<f16>) {
    let high = word >> 8u;
    stage_octet(
        at,
        low_pair(word) * scale,
        high_pair(word) * scale,
        low_pair(high) * scale,
        high_pair(high) * scale,
    );
}

fn stage_part(part: Part, lane: u32) {
    let at = lane / 2u * PITCH + lane % 2u * 32u;
    stage_word(at, part.first.x, part.first_scale);
    stage_word(at + 8u, part.first.y, part.first_scale);
    stage_word(at + 16u, part.first.z, part.first_scale);
    stage_word(at + 24u, part.first.w, part.first_scale);
    let next = at + 64u * PITCH;
    stage_word(next, part.second.x, part.second_scale);
    stage_word(next + 8u, part.second.y, part.second_scale);
    stage_word(next + 16u, part.second.z, part.second_scale);
    stage_word(next + 24u, part.second.w, part.second_scale);
}
