// Ids [.., c, h, w] in a texture, four along w to a texel: id w is component w & 3 of texel (w >>
// 2, h, c). A place is (w, c · H + h).
//
// Needs: out_sizes.
// Defines: load_index.

@group(0) @binding(1) var t_indices: texture_3d<i32>;  // ⌈w / 4⌉ × h × c

fn load_index(place: vec2<u32>) -> i32 {
    let height = u32(out_sizes.z);
    let texel = vec3<u32>(place.x >> 2u, place.y % height, place.y / height);
    return textureLoad(t_indices, texel, 0)[place.x & 3u];
}
