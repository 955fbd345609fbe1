// An array of 16-bit floats as 32-bit floats, exactly.
//
// One invocation converts a word: two numbers, or the last one. They are written as bits, because
// implementations may assume that no float is infinite or NaN.
//
// Grid: ⌈numbers / 2 / 256⌉ workgroups of 256 invocations, folded over x and y.
// In range: invocations past the last word do nothing, and a number past the last is not stored.
//
// Needs: half_to_float.
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;  // [numbers], bits of floats
@group(0) @binding(1) var<storage, read> t_in: array<u32>;  // [⌈numbers / 2⌉], two halves each
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;  // numbers, 0, 0, 0

fn float_bits(half: u32) -> u32 {
    let magnitude = half & 0x7FFFu;
    let sign = (half & 0x8000u) << 16u;
    let endless = sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13u);  // infinity or NaN
    return select(bitcast<u32>(half_to_float(half)), endless, magnitude >= 0x7C00u);
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
    let word = t_in[first / 2u];
    t_out[first] = float_bits(word & 0xFFFFu);
    if first + 1u < sizes.x {
        t_out[first + 1u] = float_bits(word >> 16u);
    }
}
