// Rows to blocks: packs a matrix for reading 8 rows at a time.
//
// The two blocks of rows 8·n8 … 8·n8 + 7 and columns 8·k8 … 8·k8 + 7 come from one word of each
// row.  Rows past V are padding, PADDING a word.

// Four nibbles in the low half of each word, each moved to the low half of a byte of its own.
fn spread(octets: vec4<u32>) -> vec4<u32> {
    let bytes = (octets & vec4<u32>(0xFFFFu)) | (octets << vec4<u32>(8u));
    let pairs = bytes & vec4<u32>(0x00FF00FFu);
    return (pairs | (pairs << vec4<u32>(4u))) & vec4<u32>(0x0F0F0F0Fu);
}

fn octet_or_padding(row: u32, k8: u32) -> u32 {
    return select(PADDING, load_weight_octet(min(row, vocab() - 1u), k8), row < vocab());
}

fn four_octets(row: u32, k8: u32) -> vec4<u32> {
    return vec4<u32>(
        octet_or_padding(row, k8),
        octet_or_padding(row + 1u, k8),
        octet_or_padding(row + 2u, k8),
        octet_or_padding(row + 3u, k8),
    );
}

fn pack_blocks(n8: u32, k8: u32) {
    let low = four_octets(8u * n8, k8);
    let high = four_octets(8u * n8 + 4u, k8);
    let first = spread(low) | (spread(high) << vec4<u32>(4u));
    let second = spread(low >> vec4<u32>(16u)) | (spread(high >> vec4<u32>(16u)) << vec4<u32>(4u));
    store_block(n8, 2u * k8, first);
    store_block(n8, 2u * k8 + 1u, second);
}
