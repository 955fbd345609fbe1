// W · x for one row of x, as a decode step needs it: what is done before and after the product is
// part of it (prologue_*.wgsl, epilogue_*.wgsl).
//
// A team of TEAM invocations shares LANE_ROWS rows of the weight. An invocation has whole chunks of
// 32 columns of x in registers, every TEAMth, and multiplies the same chunk of each of the rows with
// them; all of these are asked for before the first is used. Then the sums of a team are added up
// (fold_*.wgsl). Where x comes from is said in x_in_*.wgsl.
//
// Grid: ⌈rows / (INVOCATIONS / TEAM · LANE_ROWS)⌉ workgroups, folded over x and y, where the epilogue
// says how many rows there are of each kind.
// Assumes: K % 32 == 0 and G % 32 == 0; TEAM divides INVOCATIONS; LANE_ROWS is 1, 2, 4 or 8 and, unless
// TEAM is 1, at most TEAM; a workgroup has 4 · INVOCATIONS · (LANE_ROWS + 4) bytes of memory besides the
// epilogue's.
// In range: chunks are below K / 32; the epilogue clamps rows of the weight to the last; places in
// workgroup memory follow from the invocation's index alone.
//
// Needs: embed_dim, fetch_end, stage_x, load_chunk, weight_row, Chunk, arrange, load_x, dot_chunk,
// put_squares, fetch_squares, leave_sums, fold, finish.
// Defines: INVOCATIONS, TEAM, LANE_ROWS, X, outputs, chunk_of, main.

override INVOCATIONS: u32 = 128u;  // of a workgroup
override TEAM: u32 = 32u;  // invocations that share rows of the weight
override LANE_ROWS: u32 = 2u;  // rows that a team shares

// A chunk of x, and its sum.
struct X {
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
    sum: f32,
}

// Return the outputs of a workgroup.
fn outputs() -> u32 {
    return INVOCATIONS / TEAM * LANE_ROWS;
}

// Return a chunk of x with its sum, which a weight with offsets needs.
fn chunk_of(
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
) -> X {
    let sums = ((a + b) + (c + d)) + ((e + f) + (g + h));
    return X(a, b, c, d, e, f, g, h, (sums.x + sums.y) + (sums.z + sums.w));
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let flat = workgroup.y * grid.x + workgroup.x;
    let first = lane / TEAM * LANE_ROWS;
    let chunks = embed_dim() / 32u;
    // Asked for before the product, because nothing waits for it until the end.
    let fetched = fetch_end(flat, lane);
    var near = vec4<f32>(0.0);
    var far = vec4<f32>(0.0);
    // The number of turns is a constant to the compiler.
    for (var first_chunk = 0u; first_chunk < chunks; first_chunk += TEAM) {
        stage_x(first_chunk, lane);
        let chunk = first_chunk + lane % TEAM;
        if chunk < chunks {
            let a = load_chunk(weight_row(flat, first), chunk);
            var b: Chunk;
            var c: Chunk;
            var d: Chunk;
            var e: Chunk;
            var f: Chunk;
            var g: Chunk;
            var h: Chunk;
            if LANE_ROWS > 1u {
                b = load_chunk(weight_row(flat, first + 1u), chunk);
            }
            if LANE_ROWS > 2u {
                c = load_chunk(weight_row(flat, first + 2u), chunk);
                d = load_chunk(weight_row(flat, first + 3u), chunk);
            }
            if LANE_ROWS > 4u {
                e = load_chunk(weight_row(flat, first + 4u), chunk);
                f = load_chunk(weight_row(flat, first + 5u), chunk);
                g = load_chunk(weight_row(flat, first + 6u), chunk);
                h = load_chunk(weight_row(flat, first + 7u), chunk);
            }
            let x = arrange(load_x(chunk));
            near.x += dot_chunk(a, x);
            if LANE_ROWS > 1u {
                near.y += dot_chunk(b, x);
            }
            if LANE_ROWS > 2u {
                near.z += dot_chunk(c, x);
                near.w += dot_chunk(d, x);
            }
            if LANE_ROWS > 4u {
                far.x += dot_chunk(e, x);
                far.y += dot_chunk(f, x);
                far.z += dot_chunk(g, x);
                far.w += dot_chunk(h, x);
            }
        }
    }
    put_squares(lane, fetch_squares(lane));
    leave_sums(lane, first, near, far);
    fold(lane);
    finish(flat, lane, fetched);
}
