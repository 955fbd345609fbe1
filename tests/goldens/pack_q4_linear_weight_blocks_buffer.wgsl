// ---- shape/overrides.wgsl

// The shape of the matrix as pipeline constants, so that the compiler turns divisions by K and G
// into shifts and multiplications.
//
// Defines: VOCAB, embed_dim, group_size, vocab.

override EMBED_DIM: u32;  // K
override GROUP_SIZE: u32;  // G
override VOCAB: u32;  // V

fn embed_dim() -> u32 {
    return EMBED_DIM;
}

fn group_size() -> u32 {
    return GROUP_SIZE;
}

fn vocab() -> u32 {
    return VOCAB;
}

// ---- weight/rows.wgsl

// The weight as rows of K/2 bytes in the linear convention: nibble i of 32-bit word k8 is column
// 8·k8 + i. K is a multiple of 8, so every row is a number of whole words.
//
// In range: callers keep the row below V and the word below K / 8.
//
// Needs: embed_dim.
// Defines: load_weight_word, load_weight_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<u32>;  // [V][K / 8], eight columns each

fn load_weight_word(row: u32, k8: u32) -> u32 {
    return t_weight[row * (embed_dim() / 8u) + k8];
}

fn load_weight_quad(row: u32, k4: u32) -> vec4<f32> {
    let nibbles = load_weight_word(row, k4 >> 1u) >> ((k4 & 1u) * 16u);
    let values = (vec4<u32>(nibbles) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    return vec4<f32>(values) - 8.0;
}

// ---- pack/target_buffer.wgsl

// Blocks into a buffer, 16 bytes each, the blocks of a strip side by side.
//
// Needs: embed_dim.
// Defines: store_block.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // [⌈V / 8⌉][K / 4], a block each

fn store_block(n8: u32, k4: u32, block: vec4<u32>) {
    t_out[n8 * (embed_dim() / 4u) + k4] = block;
}

// ---- pack/pack_q4_linear_weight.wgsl

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

// ---- pack/grid_flat.wgsl

// Packing where the host is free to choose the grid: one invocation makes two blocks.
//
// Grid: ⌈⌈V / 8⌉ · K / 8 / 64⌉ workgroups of 64 invocations, folded over x and y; invocations run
// along k8 first, then along n8.
//
// Needs: embed_dim, vocab, pack_blocks.
// Defines: PADDING, main.

const PADDING = 0u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let words = embed_dim() / 8u;
    let strips = (vocab() + 7u) / 8u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    if flat < words * strips {
        pack_blocks(flat / words, flat % words);
    }
}
