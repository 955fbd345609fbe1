// An array of 32-bit floats as 16-bit floats, rounded to nearest even.
//
// One invocation converts two numbers to a word; the last number of an odd array shares its word
// with a zero. They are read as bits, because implementations may assume that no float is NaN.
//
// Grid: ⌈numbers / 2 / 256⌉ workgroups of 256 invocations, folded over x and y.
// In range: invocations past the last word do nothing, and a number past the last is read as the
// last and not stored.
//
// Needs: floats_to_halves.
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;  // [⌈numbers / 2⌉], two halves each
@group(0) @binding(1) var<storage, read> t_in: array<u32>;  // [numbers], bits of floats
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // numbers, 0, 0, 0

fn is_nan(bits: u32) -> bool {
    return (bits & 0x7FFFFFFFu) > 0x7F800000u;
}

fn half_pair(first: u32, second: u32) -> u32 {
    let rounded = floats_to_halves(bitcast<vec4<f32>>(vec4<u32>(first, second, 0u, 0u))).x;
    let low = select(rounded & 0xFFFFu, 0x7E00u, is_nan(first));
    let high = select(rounded >> 16u, 0x7E00u, is_nan(second));
    return low | (high << 16u);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = ((workgroup.y * grid.x + workgroup.x) * 256u + lane) * 2u;
    if first >= sizes.x {
        return;
    }
    let last = sizes.x - 1u;
    let second = select(0u, t_in[min(first + 1u, last)], first < last);
    t_out[first / 2u] = half_pair(t_in[first], second);
}
