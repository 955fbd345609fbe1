// The scales of four neighbouring rows. Rows past V are padding, for which any scale will do: they
// get the last row's.
//
// Needs: vocab, load_scale.
// Defines: load_scales.

fn load_scales(row: u32, group: u32) -> vec4<f32> {
    let last = vocab() - 1u;
    return vec4<f32>(
        load_scale(min(row, last), group),
        load_scale(min(row + 1u, last), group),
        load_scale(min(row + 2u, last), group),
        load_scale(min(row + 3u, last), group),
    );
}
