// x as a row. The chunks of a turn are staged in workgroup memory, in the order in which neighbouring
// invocations read neighbouring quads.
//
// In range: staged chunks are below K / 32; places in workgroup memory are below 8 · (TEAM + 1), since a
// chunk's place is below TEAM.
//
// Needs: TEAM, embed_dim, INVOCATIONS, X, chunk_of.
// Defines: stage_x, load_x.

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [K / 4]

var<workgroup> staged_x: array<vec4<f32>, 8u * (TEAM + 1u)>;  // [8][TEAM + 1]: the last is never used

fn stage_x(first_chunk: u32, lane: u32) {
    let quads = min(TEAM, embed_dim() / 32u - first_chunk) * 8u;
    if first_chunk > 0u {
        workgroupBarrier();
    }
    for (var i = lane; i < quads; i += INVOCATIONS) {
        staged_x[i % 8u * (TEAM + 1u) + i / 8u] = t_x[first_chunk * 8u + i];
    }
    workgroupBarrier();
}

fn load_x(chunk: u32) -> X {
    let at = chunk % TEAM;
    let next = TEAM + 1u;
    return chunk_of(
        staged_x[at], staged_x[next + at], staged_x[2u * next + at], staged_x[3u * next + at],
        staged_x[4u * next + at], staged_x[5u * next + at],
        staged_x[6u * next + at], staged_x[7u * next + at],
    );
}
