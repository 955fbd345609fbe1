// The place of the n-th id where ids and result are in buffers. They are flat, so the place is n
// itself.
//
// Defines: place_of.

fn place_of(position: u32) -> vec2<u32> {
    return vec2<u32>(position, 0u);
}
