// ---- half/native.wgsl

// Half-precision numbers converted by the built-in functions.
//
// WGSL leaves open how these functions round, what they make of values out of range, and whether
// they keep subnormals. This piece is only for devices on which probe/halves.wgsl found that they
// round to nearest even, overflow to infinity and keep subnormals. half/integer.wgsl works
// everywhere.
//
// Defines: half_to_float, half_of_word, floats_to_halves.

// Return the half-precision number in the low 16 bits.
fn half_to_float(half: u32) -> f32 {
    return unpack2x16float(half).x;
}

// Return one of the two half-precision numbers in a word. Choosing after both are converted takes fewer
// instructions than a shift and a mask before.
fn half_of_word(word: u32, index: u32) -> f32 {
    return unpack2x16float(word)[index];
}

// Return four floats rounded to half precision.
fn floats_to_halves(values: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}

// ---- scales/f16.wgsl

// Scales [V, K/G] as 16-bit floats, two to a word.
//
// In range: callers keep the row below V and the group below K / G.
//
// Needs: embed_dim, group_size, half_of_word.
// Defines: t_scales, load_scale.

@group(0) @binding(3) var<storage, read> t_scales: array<u32>;  // [V][K / G] halves, two each

fn load_scale(row: u32, group: u32) -> f32 {
    let at = row * (embed_dim() / group_size()) + group;
    return half_of_word(t_scales[at >> 1u], at & 1u);
}

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

// ---- embedding/place_buffer.wgsl

// The place of the n-th id where ids and result are in buffers. They are flat, so the place is n
// itself.
//
// Defines: place_of.

fn place_of(position: u32) -> vec2<u32> {
    return vec2<u32>(position, 0u);
}

// ---- embedding/indices_buffer.wgsl

// Ids in a buffer, flat. A place is (index along the ids' last dimension, index over their other
// dimensions).
//
// Needs: out_sizes.
// Defines: load_index.

@group(0) @binding(1) var<storage, read> t_indices: array<i32>;  // [ids]

fn load_index(place: vec2<u32>) -> i32 {
    return t_indices[place.y * u32(out_sizes.y) + place.x];
}

// ---- embedding/output_buffer_half_wide.wgsl

// The result in a buffer of 16-bit floats, [ids, K], eight to a store of 16 bytes.
//
// Needs: out_sizes, floats_to_halves, embed_dim.
// Defines: store_eight.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<u32>>;  // [ids][K / 8], eight halves each

fn store_eight(place: vec2<u32>, k8: u32, first: vec4<f32>, second: vec4<f32>) {
    let position = place.y * u32(out_sizes.y) + place.x;
    let halves = vec4<u32>(floats_to_halves(first), floats_to_halves(second));
    t_out[position * (embed_dim() / 8u) + k8] = halves;
}

// ---- embedding/embedding_q4gsw.wgsl

// The embedding of one id: out[place, k] = (u − 8) · scale.
//
// The product is rounded once, so the result is the same bits on every device. An id outside 0 … V
// − 1 reads row 0 and gives zeros: nothing outside the weight is ever read.
//
// Needs: vocab.
// Defines: is_known, row_of, embedded.

// Tell whether an id is in 0 … V − 1: as V < 2^31, a negative one is too large when unsigned.
fn is_known(id: i32) -> bool {
    return u32(id) < vocab();
}

fn row_of(id: i32, known: bool) -> u32 {
    return select(0u, u32(id), known);
}

fn embedded(known: bool, weight: vec4<f32>, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(0.0), weight * scale, known);
}

// ---- embedding/grid_flat.wgsl

// The embedding where the host is free to choose the grid: one invocation writes two vectors of 16
// bytes of the result.
//
// The result is a flat array of ids × K / VECTOR vectors of VECTOR columns (vectors_of_four.wgsl or
// vectors_of_eight.wgsl). A workgroup of 128 invocations writes 256 neighbouring vectors, and an
// invocation the two of them that lie 128 apart: all its loads come before its stores, and
// neighbouring invocations store neighbouring vectors.
//
// Grid: ⌈ids · K / VECTOR / 256⌉ workgroups, folded over x and y.
// Assumes: ids · K / 4 < 2^32 − 256.
// In range: a vector past the last is read as the last and not written; a row is one that
// is_known() allows, or row 0.
//
// Needs: is_known, row_of, load_scale, group_size, embedded, load_weight_quad, embed_dim, VECTOR,
// value_at, store_at.
// Defines: out_sizes, embed_quad, main.

@group(0) @binding(4) var<uniform> out_sizes: vec4<i32>;  // K, then the ids' dimensions, last first

fn embed_quad(id: i32, k4: u32) -> vec4<f32> {
    // is_known() would do alone, but on an H200 the branch that this makes is worth 15 % of a
    // half-precision embedding.
    let known = id >= 0 && is_known(id);
    let row = row_of(id, known);
    let scale = load_scale(row, k4 * 4u / group_size());
    return embedded(known, load_weight_quad(row, k4), scale);
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let vectors = u32(out_sizes.y * out_sizes.z * out_sizes.w) * (embed_dim() / VECTOR);
    let first = (workgroup.y * grid.x + workgroup.x) * 256u + lane;
    let second = first + 128u;
    let first_value = value_at(min(first, vectors - 1u));
    let second_value = value_at(min(second, vectors - 1u));
    if first < vectors {
        store_at(first, first_value);
    }
    if second < vectors {
        store_at(second, second_value);
    }
}

// ---- embedding/vectors_of_eight.wgsl

// A vector of the result is 8 columns: 16 bytes of float16.
//
// Needs: embed_dim, load_index, place_of, embed_quad, store_eight.
// Defines: VECTOR, value_at, store_at.

const VECTOR = 8u;

struct Value {
    first: vec4<f32>,
    second: vec4<f32>,
}

fn value_at(vector: u32) -> Value {
    let position = vector / (embed_dim() / VECTOR);
    let id = load_index(place_of(position));
    let quad = vector % (embed_dim() / VECTOR) * 2u;
    return Value(embed_quad(id, quad), embed_quad(id, quad + 1u));
}

fn store_at(vector: u32, value: Value) {
    let position = vector / (embed_dim() / VECTOR);
    store_eight(place_of(position), vector % (embed_dim() / VECTOR), value.first, value.second);
}
