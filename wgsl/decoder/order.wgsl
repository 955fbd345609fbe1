// The two orders of a row of x: quads one after the other, or, for the GEMV of a decode step, quad i
// of all chunks of 32 columns, so that neighbouring lanes read neighbouring quads.
//
// Defines: place_of_quad.

override CHUNKED: u32 = 0u;  // 1: [8 quads][chunks] instead of [chunks][8 quads]

// Return where quad k4 of a row of that many quads lies.
fn place_of_quad(k4: u32, quads: u32) -> u32 {
    if CHUNKED == 1u {
        return k4 % 8u * (quads / 8u) + k4 / 8u;
    }
    return k4;
}
