// The place of the n-th id where ids and result are in textures: along the ids' last dimension
// first, then over the others.
//
// Needs: out_sizes.
// Defines: place_of.

fn place_of(position: u32) -> vec2<u32> {
    let width = u32(out_sizes.y);
    return vec2<u32>(position % width, position / width);
}
