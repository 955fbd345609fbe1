// x in the order of chunks, as its producer stored it: neighbouring invocations read neighbouring quads.
//
// In range: callers keep the chunk below K / 32.
//
// Needs: X, embed_dim, chunk_of.
// Defines: stage_x, load_x.

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [8][K / 32]

fn stage_x(first_chunk: u32, lane: u32) {}

fn load_x(chunk: u32) -> X {
    let chunks = embed_dim() / 32u;
    return chunk_of(
        t_x[chunk], t_x[chunks + chunk], t_x[2u * chunks + chunk], t_x[3u * chunks + chunk],
        t_x[4u * chunks + chunk], t_x[5u * chunks + chunk],
        t_x[6u * chunks + chunk], t_x[7u * chunks + chunk],
    );
}
