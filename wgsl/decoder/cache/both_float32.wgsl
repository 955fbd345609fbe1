// The cache of keys and values in single precision, to be read and written.
//
// In range: callers keep the places below KV_HEADS · CAPACITY · HEAD_DIM / 4.
//
// Defines: load_key, load_value, store_key, store_value.

@group(0) @binding(2) var<storage, read_write> t_keys: array<vec4<f32>>;  // [KV_HEADS][HEAD_DIM / 4][CAPACITY]
@group(0) @binding(3) var<storage, read_write> t_values: array<vec4<f32>>;  // [KV_HEADS][CAPACITY][HEAD_DIM / 4]

fn load_key(at: u32) -> vec4<f32> {
    return t_keys[at];
}

fn load_value(at: u32) -> vec4<f32> {
    return t_values[at];
}

fn store_key(at: u32, value: vec4<f32>) {
    t_keys[at] = value;
}

fn store_value(at: u32, value: vec4<f32>) {
    t_values[at] = value;
}
