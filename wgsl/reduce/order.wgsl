// The order of floats as an order of unsigned integers: NaN first, then from infinity down.
//
// Implementations may assume that no float is NaN, so floats are compared by their bits: those of
// positive floats lie above those of negative floats, which are mirrored. −0 and 0 are equal, and
// so are all NaN.
//
// Defines: order.

// Return 0x007fffff for −∞ and more for larger floats.
fn order(bits: u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    let found = select(magnitude | 0x80000000u, ~bits, bits > 0x80000000u);
    return select(found, 0xffffffffu, magnitude > 0x7f800000u);
}
