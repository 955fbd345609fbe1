// Random words by Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
//
// Needs: multiply_wide.
// Defines: random_words.

// Return the four words of a counter under a key.
fn random_words(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var words = counter;
    var round_key = key;
    for (var round = 0u; round < 10u; round++) {
        let first = multiply_wide(0xd2511f53u, words.x);
        let second = multiply_wide(0xcd9e8d57u, words.z);
        words = vec4<u32>(
            second.y ^ words.y ^ round_key.x, second.x, first.y ^ words.w ^ round_key.y, first.x
        );
        round_key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return words;
}
