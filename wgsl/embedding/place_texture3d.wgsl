// Where the n-th id belongs when ids and result are textures: along their y, then their z.

fn place_of(position: u32) -> vec2<u32> {
    let width = u32(out_sizes.y);
    return vec2<u32>(position % width, position / width);
}
