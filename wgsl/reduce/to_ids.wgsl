// The output of the last dispatch of a reduction: ids alone, which an embedding may read.
//
// In range: callers keep the place below the number of entries that are kept.
//
// Defines: store_entry.

@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;  // [rows][KEPT or 1]

fn store_entry(place: u32, entry: vec2<u32>) {
    t_out[place] = entry.y;
}
