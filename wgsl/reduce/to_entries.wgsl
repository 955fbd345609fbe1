// The output of a reduction: entries, which another one may read.
//
// In range: callers keep the place below the number of entries that are kept.
//
// Defines: store_entry.

@group(0) @binding(0) var<storage, read_write> t_out: array<vec2<u32>>;  // [rows][slots][KEPT or 1], bits of a logit and its id

fn store_entry(place: u32, entry: vec2<u32>) {
    t_out[place] = entry;
}
