// The embedding on the grid that ExecuTorch's WebGPU backend dispatches: a workgroup writes
// 8 · wg_size neighbouring quads, and an invocation the eight that lie wg_size apart. All its loads
// come before its stores, and neighbouring lanes store neighbouring 16 bytes.
//
// Grid: ⌈ids · K / 32 / wg_size⌉ workgroups.
// Assumes: K % 32 == 0 and K % G == 0. Where G is no multiple of 4, a quad has several scales.
//
// Needs: embed_dim, load_index, params, is_known, row_of, load_scale, group_size, embedded,
// load_weight_quad, store_quad.
// Defines: main.

override wg_size: u32 = 128u;  // invocations of a workgroup; the host lowers it to the device's limit

// A quad of the result: the id that it belongs to, and its place in the row.
struct Place {
    position: u32,
    k4: u32,
}

// Return the place `step` after another, without a division.
fn next_place(place: Place, step: Place) -> Place {
    let k4 = place.k4 + step.k4;
    let position = place.position + step.position;
    let row_quads = embed_dim() / 4u;
    let is_in_next_row = k4 >= row_quads;
    return Place(
        position + select(0u, 1u, is_in_next_row),
        select(k4, k4 - row_quads, is_in_next_row),
    );
}

// Return an id; that of a place past the last, which is not stored, is the last.
fn load_known_index(place: Place) -> i32 {
    return load_index(min(place.position, params.num_indices - 1u));
}

fn value_at(place: Place) -> vec4<f32> {
    let id = load_known_index(place);
    let known = is_known(id);
    let row = row_of(id, known);
    let scale = load_scale(row, place.k4 * 4u / group_size());
    return embedded(known, load_weight_quad(row, place.k4), scale);
}

fn value_by_column(place: Place) -> vec4<f32> {
    let id = load_known_index(place);
    let known = is_known(id);
    let row = row_of(id, known);
    let columns = vec4<u32>(4u * place.k4) + vec4<u32>(0u, 1u, 2u, 3u);
    let groups = columns / vec4<u32>(group_size());
    let weight = load_weight_quad(row, place.k4);
    return vec4<f32>(
        embedded(known, weight, load_scale(row, groups.x)).x,
        embedded(known, weight, load_scale(row, groups.y)).y,
        embedded(known, weight, load_scale(row, groups.z)).z,
        embedded(known, weight, load_scale(row, groups.w)).w,
    );
}

fn store_within(quad: u32, value: vec4<f32>) {
    if quad < params.total_blocks * 8u {
        store_quad(quad, value);
    }
}

@compute @workgroup_size(wg_size, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row_quads = embed_dim() / 4u;
    let first = workgroup.x * wg_size * 8u + lane;
    let step = Place(wg_size / row_quads, wg_size % row_quads);
    let place0 = Place(first / row_quads, first % row_quads);
    if group_size() % 4u != 0u {
        for (var i = 0u; i < 8u; i++) {
            let quad = first + i * wg_size;
            store_within(quad, value_by_column(Place(quad / row_quads, quad % row_quads)));
        }
        return;
    }
    let place1 = next_place(place0, step);
    let place2 = next_place(place1, step);
    let place3 = next_place(place2, step);
    let place4 = next_place(place3, step);
    let place5 = next_place(place4, step);
    let place6 = next_place(place5, step);
    let place7 = next_place(place6, step);
    let value0 = value_at(place0);
    let value1 = value_at(place1);
    let value2 = value_at(place2);
    let value3 = value_at(place3);
    let value4 = value_at(place4);
    let value5 = value_at(place5);
    let value6 = value_at(place6);
    let value7 = value_at(place7);
    store_within(first, value0);
    store_within(first + wg_size, value1);
    store_within(first + 2u * wg_size, value2);
    store_within(first + 3u * wg_size, value3);
    store_within(first + 4u * wg_size, value4);
    store_within(first + 5u * wg_size, value5);
    store_within(first + 6u * wg_size, value6);
    store_within(first + 7u * wg_size, value7);
}
