// x in the order of chunks, for teams of one invocation: all invocations of a subgroup need the same
// chunk. Each loads one of its 8 quads, and gets the others from its neighbours. A processor loads for
// one invocation after the other, but hands a number to all of them in one instruction.
//
// Assumes: TEAM is 1; subgroups have 8 lanes or more, which follow one another in the order of the
// invocations' indices (probe/subgroups.wgsl).
// In range: callers keep the chunk below K / 32.
//
// Needs: embed_dim, X, chunk_of.
// Defines: stage_x, load_x.

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [8][K / 32]

var<private> own_quad: vec4<f32>;

fn stage_x(first_chunk: u32, lane: u32) {
    own_quad = t_x[lane % 8u * (embed_dim() / 32u) + first_chunk];
}

fn load_x(chunk: u32) -> X {
    return chunk_of(
        subgroupShuffle(own_quad, 0u), subgroupShuffle(own_quad, 1u),
        subgroupShuffle(own_quad, 2u), subgroupShuffle(own_quad, 3u),
        subgroupShuffle(own_quad, 4u), subgroupShuffle(own_quad, 5u),
        subgroupShuffle(own_quad, 6u), subgroupShuffle(own_quad, 7u),
    );
}
