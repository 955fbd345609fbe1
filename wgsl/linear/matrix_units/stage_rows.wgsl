// Stages 64 columns of a tile of the weight from rows: an invocation takes a chunk of 32 columns
// (16 bytes) of two rows that lie 64 apart. A word's columns are stored in the order in which two
// nibbles lie 16 bits apart, 0 4 1 5 2 6 3 7, and so are those of x.
//
// Needs: embed_dim, vocab, group_size, load_weight_chunk, scale_pair, stage_eight, low_pair,
// high_pair, PITCH.
// Defines: fetch_weight, stage_weight.

struct FetchedWeight {
    first: vec4<u32>,
    second: vec4<u32>,
    first_scale: vec2<f16>,
    second_scale: vec2<f16>,
}

// Fetch what an invocation stages of columns 64·step …; past K, the scale is zero.
fn fetch_weight(first_n: u32, step: u32, lane: u32) -> FetchedWeight {
    let chunks = embed_dim() / 32u;
    let row = min(first_n + lane / 2u, vocab() - 1u);
    let next_row = min(first_n + lane / 2u + 64u, vocab() - 1u);
    let wanted = 2u * step + lane % 2u;
    let chunk = min(wanted, chunks - 1u);
    let group = chunk * 32u / group_size();
    let inside = wanted < chunks;
    return FetchedWeight(
        load_weight_chunk(row, chunk),
        load_weight_chunk(next_row, chunk),
        select(vec2<f16>(), scale_pair(row, group), inside),
        select(vec2<f16>(), scale_pair(next_row, group), inside),
    );
}

fn stage_word(at: u32, word: u32, scale: vec2<f16>) {
    let high = word >> 8u;
    stage_eight(
        at,
        low_pair(word) * scale,
        high_pair(word) * scale,
        low_pair(high) * scale,
        high_pair(high) * scale,
    );
}

fn stage_weight(weight: FetchedWeight, lane: u32) {
    let at = lane / 2u * PITCH + lane % 2u * 32u;
    stage_word(at, weight.first.x, weight.first_scale);
    stage_word(at + 8u, weight.first.y, weight.first_scale);
    stage_word(at + 16u, weight.first.z, weight.first_scale);
    stage_word(at + 24u, weight.first.w, weight.first_scale);
    let next = at + 64u * PITCH;
    stage_word(next, weight.second.x, weight.second_scale);
    stage_word(next + 8u, weight.second.y, weight.second_scale);
    stage_word(next + 16u, weight.second.z, weight.second_scale);
    stage_word(next + 24u, weight.second.w, weight.second_scale);
}
