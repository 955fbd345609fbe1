// Eight neighbouring columns of a row of a weight in half precision.
//
// In range: callers keep the row below V and the eight below K / 8.
//
// Needs: embed_dim, two_halves.
// Defines: Eight, load_eight, first_quad, second_quad.

@group(0) @binding(2) var<storage, read> t_weight: array<vec4<u32>>;  // [V][K / 8], eight halves each

struct Eight {
    halves: vec4<u32>,
}

fn load_eight(row: u32, k8: u32) -> Eight {
    return Eight(t_weight[row * (embed_dim() / 8u) + k8]);
}

fn first_quad(eight: Eight) -> vec4<f32> {
    return vec4<f32>(two_halves(eight.halves.x), two_halves(eight.halves.y));
}

fn second_quad(eight: Eight) -> vec4<f32> {
    return vec4<f32>(two_halves(eight.halves.z), two_halves(eight.halves.w));
}
