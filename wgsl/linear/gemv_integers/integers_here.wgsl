// One row of x that every workgroup quantizes for itself, into workgroup memory.
//
// Assumes: X_ROWS is 1, CHUNKS = K / 32, VECTORS = 2 · PLANES · CHUNKS, and a workgroup has 16 ·
// VECTORS bytes of memory and a ScaleWords for each chunk.
// In range: vectors are below 2 · PLANES and chunks below CHUNKS, by the loops here and in the
// bodies.
//
// Needs: ScaleWords, INVOCATIONS, quantize, sizes, PLANES.
// Defines: t_x, store_vector, store_scale, load_scale_words, prepare_x, load_words.

@group(0) @binding(1) var<storage, read> t_x: array<vec4<f32>>;  // [M][K / 4]

override CHUNKS: u32 = 64u;  // K / 32
override VECTORS: u32 = 256u;  // 2 · PLANES · CHUNKS: naga 29 panics at a product of overrides as a size

var<workgroup> vectors: array<vec4<u32>, VECTORS>;  // [2 · PLANES][CHUNKS]
var<workgroup> scale_words: array<ScaleWords, CHUNKS>;

fn store_vector(row: u32, v: u32, chunk: u32, words: vec4<u32>) {
    vectors[v * CHUNKS + chunk] = words;
}

fn store_scale(row: u32, chunk: u32, words: ScaleWords) {
    scale_words[chunk] = words;
}

fn load_vector(row: u32, v: u32, chunk: u32) -> vec4<u32> {
    return vectors[v * CHUNKS + chunk];
}

fn load_scale_words(row: u32, chunk: u32) -> ScaleWords {
    return scale_words[chunk];
}

// Quantize row m of x, and return the row that load_words() takes for it.
fn prepare_x(m: u32, lane: u32) -> u32 {
    for (var chunk = lane; chunk < CHUNKS; chunk += INVOCATIONS) {
        quantize((min(m, sizes.x - 1u) * CHUNKS + chunk) * 8u, 0u, chunk);
    }
    workgroupBarrier();
    return 0u;
}

// Columns 8·w … of a chunk: words of the first and of the second columns in the low plane, then in
// the high plane, if there is one.
fn load_words(row: u32, w: u32, chunk: u32) -> vec4<u32> {
    if PLANES == 2u {
        return load_vector(row, w, chunk);
    }
    let both = load_vector(row, w / 2u, chunk);
    return vec4<u32>(select(both.xy, both.zw, w % 2u == 1u), 0u, 0u);
}
