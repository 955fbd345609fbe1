// Blocks into a buffer, 16 bytes each, the blocks of a strip side by side.
//
// Needs: embed_dim.
// Defines: store_block.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // [⌈V / 8⌉][K / 4], a block each

fn store_block(n8: u32, k4: u32, block: vec4<u32>) {
    t_out[n8 * (embed_dim() / 4u) + k4] = block;
}
