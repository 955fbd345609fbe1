// The scale and the offset of each 32 columns of a row: a value is scale · q + offset, with q from 0.
//
// In range: callers keep the row below V and the chunk below K / 32.
//
// Needs: two_halves, embed_dim.
// Defines: load_pair.

@group(0) @binding(3) var<storage, read> t_pairs: array<u32>;  // [V][K / 32] scale and offset, halves

fn load_pair(row: u32, chunk: u32) -> vec2<f32> {
    return two_halves(t_pairs[row * (embed_dim() / 32u) + chunk]);
}
