// Nibbles to floats, exactly, two to an integer instruction.
//
// A nibble n or'ed into the lowest bits of the half 2^10 makes the half 1024 + n; or'ed into bits 4
// to 7 of 2^6 it makes 64 + n. These are normal numbers, which every device converts exactly, and
// subtracting 1032 or 72 leaves n − 8, without rounding. exact_f32.wgsl needs no conversion, but
// twice as many integer instructions, and a GPU has fewer units for those.
//
// The compiler must not know the two halves: NVIDIA's makes a number that it knows the immediate
// operand of the instruction that masks and ors, and then needs another one, which moves the mask
// into a register. V is below 2^31, so the halves are what they look like.
//
// Needs: vocab.
// Defines: unpack_word.

// Columns 8·k8 … 8·k8 + 7 as n − 8.
struct Unpacked {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn unpack_word(word: u32) -> Unpacked {
    let hidden_zero = vocab() >> 31u;
    let even = 0x64006400u | hidden_zero;
    let odd = 0x54005400u | hidden_zero;
    let upper = word >> 8u;
    let first = unpack2x16float((word & 0x000F000Fu) | even) - 1032.0;
    let second = unpack2x16float((word & 0x00F000F0u) | odd) - 72.0;
    let third = unpack2x16float((upper & 0x000F000Fu) | even) - 1032.0;
    let fourth = unpack2x16float((upper & 0x00F000F0u) | odd) - 72.0;
    return Unpacked(
        vec4<f32>(first.x, second.x, third.x, fourth.x),
        vec4<f32>(first.y, second.y, third.y, fourth.y),
    );
}
