// The products of 32 nibbles and a chunk of x, unpacked as linear/gemv/nibbles_*.wgsl does it.
//
// Needs: X, arrange_first, arrange_second, unpack_first, unpack_second, UNSCALE.
// Defines: arrange, dot_nibbles.

// Put x into the order in which nibbles are unpacked.
fn arrange(x: X) -> X {
    return X(
        arrange_first(x.a, x.b), arrange_second(x.a, x.b),
        arrange_first(x.c, x.d), arrange_second(x.c, x.d),
        arrange_first(x.e, x.f), arrange_second(x.e, x.f),
        arrange_first(x.g, x.h), arrange_second(x.g, x.h),
        x.sum,
    );
}

// Return sum + the eight products of a word and x.
fn dot_word(word: u32, low: vec4<f32>, high: vec4<f32>, sum: f32) -> f32 {
    let first = unpack_first(word);
    let second = unpack_second(word);
    let part = fma(first.w, low.w, fma(first.z, low.z, fma(first.y, low.y, fma(first.x, low.x, sum))));
    return fma(second.w, high.w, fma(second.z, high.z, fma(second.y, high.y, fma(second.x, high.x, part))));
}

// Return the sum of (q − 8) · x, in two sums, so that no addition waits for more than 15 others.
fn dot_nibbles(words: vec4<u32>, x: X) -> f32 {
    let first = dot_word(words.y, x.c, x.d, dot_word(words.x, x.a, x.b, 0.0));
    let second = dot_word(words.w, x.g, x.h, dot_word(words.z, x.e, x.f, 0.0));
    return (first + second) * UNSCALE;
}
