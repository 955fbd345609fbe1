// The end of a draw: a random place below the sum of all weights, and the id that lies there.
//
// In range: callers keep the row below the number of rows, and the id below `vocab`; the words of
// t_seen are ⌈vocab / 32⌉ a row.
//
// Needs: random_words, seed, add_wide, multiply_wide, flags, PENALIZED.
// Defines: NO_ID, random_place, answer.

const NO_ID = 0xffffffffu;  // the answer if no id may be drawn

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;  // [rows], bits of a logit and its id
@group(0) @binding(3) var<storage, read_write> t_seen: array<atomic<u32>>;  // [rows][⌈vocab / 32⌉], bits
@group(0) @binding(7) var<storage, read> t_state: array<u32>;  // the number of the step

// Return a place in 0 … total − 1, for a total below 2^48: a random word's share of it.
fn random_place(row: u32, total: vec2<u32>) -> vec2<u32> {
    let word = random_words(vec4<u32>(t_state[0], row, 0u, 0u), seed()).x;
    return add_wide(
        vec2<u32>(multiply_wide(total.x, word).y, 0u), multiply_wide(total.y, word)
    );
}

fn answer(row: u32, vocab: u32, entry: vec2<u32>) {
    t_out[row] = entry;
    let id = entry.y;
    if (flags() & PENALIZED) != 0u && id != NO_ID {
        atomicOr(&t_seen[row * ((vocab + 31u) / 32u) + id / 32u], 1u << (id % 32u));
    }
}
