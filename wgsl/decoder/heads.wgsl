// What comes out of the product with the query, key and value matrices, made ready for attention:
// queries and keys are normalized (if the model does so) and rotated by their position, queries are
// scaled, and keys and values go to the cache.
//
// A workgroup of 64 invocations makes one head of one row; an invocation makes a quad of it. Column i
// of the first half of a head and column i of the second half are rotated together.
//
// Grid: rows · (HEADS + 2 · KV_HEADS) workgroups, those of a row side by side, folded over x and y;
// those past the last row do nothing.
// Assumes: HEAD_DIM is a multiple of 8 of at most 256.
//
// Needs: HEAD_DIM, HEADS, KV_HEADS, row_count, first_position, store_value, CAPACITY, normalize,
// store_key.
// Defines: main.

override SCALE: u32;  // bits of the float that queries are multiplied by

@group(0) @binding(0) var<storage, read_write> t_out: array<vec4<f32>>;  // queries [rows][HEADS · HEAD_DIM / 4]
@group(0) @binding(1) var<storage, read> t_in: array<vec4<f32>>;  // [rows][(HEADS + 2 · KV_HEADS) · HEAD_DIM / 4]
@group(0) @binding(4) var<storage, read> t_rope: array<vec4<f32>>;  // [CAPACITY][HEAD_DIM / 4], cosine and sine of two columns

var<workgroup> quads: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let width = HEAD_DIM / 4u;
    let heads = HEADS + 2u * KV_HEADS;
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / heads;
    let head = flat % heads;
    if row >= row_count() {
        return;
    }
    let position = first_position() + row;
    let d4 = lane % width;
    let raw = t_in[(row * heads + head) * width + d4];
    if head >= HEADS + KV_HEADS {
        if lane < width {
            store_value(((head - HEADS - KV_HEADS) * CAPACITY + position) * width + d4, raw);
        }
        return;
    }
    let value = normalize(raw, d4, head >= HEADS, lane);
    quads[lane] = value;
    workgroupBarrier();
    let half = width / 2u;
    let partner = quads[(d4 + half) % width];
    let first = t_rope[position * width + d4 % half * 2u];
    let second = t_rope[position * width + d4 % half * 2u + 1u];
    let cosine = vec4<f32>(first.xz, second.xz);
    let sine = vec4<f32>(first.yw, second.yw) * select(1.0, -1.0, d4 < half);
    let rotated = value * cosine + partner * sine;
    if lane < width {
        if head < HEADS {
            t_out[(row * HEADS + head) * width + d4] = rotated * bitcast<f32>(SCALE);
        } else {
            store_key(((head - HEADS) * width + d4) * CAPACITY + position, rotated);
        }
    }
}
