// Packs rows of the weight into blocks, for kernels that read 8 rows at a time.
//
// pack_blocks(n8, k8) makes the two blocks of rows 8·n8 … 8·n8 + 7 and columns 8·k8 … 8·k8 + 7 from
// one word of each row. Rows past V are padding: PADDING is what a word of them holds.
//
// Needs: PADDING, load_weight_word, vocab, store_block.
// Defines: pack_blocks.

// Move the four nibbles in the low half of each word to the low half of a byte each.
fn spread(words: vec4<u32>) -> vec4<u32> {
    let bytes = (words & vec4<u32>(0xFFFFu)) | (words << vec4<u32>(8u));
    let pairs = bytes & vec4<u32>(0x00FF00FFu);
    return (pairs | (pairs << vec4<u32>(4u))) & vec4<u32>(0x0F0F0F0Fu);
}

fn word_or_padding(row: u32, k8: u32) -> u32 {
    return select(PADDING, load_weight_word(min(row, vocab() - 1u), k8), row < vocab());
}

fn four_words(row: u32, k8: u32) -> vec4<u32> {
    return vec4<u32>(
        word_or_padding(row, k8),
        word_or_padding(row + 1u, k8),
        word_or_padding(row + 2u, k8),
        word_or_padding(row + 3u, k8),
    );
}

fn pack_blocks(n8: u32, k8: u32) {
    let low = four_words(8u * n8, k8);
    let high = four_words(8u * n8 + 4u, k8);
    let first = spread(low) | (spread(high) << vec4<u32>(4u));
    let second = spread(low >> vec4<u32>(16u)) | (spread(high >> vec4<u32>(16u)) << vec4<u32>(4u));
    store_block(n8, 2u * k8, first);
    store_block(n8, 2u * k8 + 1u, second);
}
