// The cache of keys and values in half precision, to be read and written.
//
// In range: callers keep the places below KV_HEADS · CAPACITY · HEAD_DIM / 4.
//
// Needs: two_halves, floats_to_halves.
// Defines: load_key, load_value, store_key, store_value.

@group(0) @binding(2) var<storage, read_write> t_keys: array<vec2<u32>>;  // [KV_HEADS][HEAD_DIM / 4][CAPACITY], four halves each
@group(0) @binding(3) var<storage, read_write> t_values: array<vec2<u32>>;  // [KV_HEADS][CAPACITY][HEAD_DIM / 4], four halves each

fn four_halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(two_halves(words.x), two_halves(words.y));
}

fn load_key(at: u32) -> vec4<f32> {
    return four_halves(t_keys[at]);
}

fn load_value(at: u32) -> vec4<f32> {
    return four_halves(t_values[at]);
}

fn store_key(at: u32, value: vec4<f32>) {
    t_keys[at] = floats_to_halves(value);
}

fn store_value(at: u32, value: vec4<f32>) {
    t_values[at] = floats_to_halves(value);
}
