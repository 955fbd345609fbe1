// ---- decoder/choose_best.wgsl

// The end of a greedy step: the id of the largest logit, the first of equals, is the next of the
// sequence, and its position becomes the first. Where the logits are NaN, the id is NO_ID.
//
// A workgroup of 256 invocations reduces the entries that the head left, eight of them at a time.
//
// Grid: one workgroup.
// In range: entries are clamped to the last; the position is clamped to CAPACITY.
//
// Defines: main.

const NO_ID = 0xffffffffu;
const INFINITY_BITS = 0x7f800000u;

override COUNT: u32;  // entries
override CAPACITY: u32;  // positions that the cache holds

@group(0) @binding(0) var<storage, read_write> t_ids: array<u32>;  // of the whole sequence, CAPACITY + 1
@group(0) @binding(1) var<storage, read> t_in: array<vec2<u32>>;  // [COUNT], bits of a logit and its id
@group(0) @binding(7) var<storage, read_write> t_state: array<u32>;  // position of the first row, rows

var<workgroup> values: array<f32, 256>;
var<workgroup> ids: array<u32, 256>;

struct Entry {
    value: f32,
    id: u32,
}

fn load_entry(at: u32) -> Entry {
    let entry = t_in[min(at, COUNT - 1u)];
    return Entry(bitcast<f32>(entry.x), entry.y);
}

fn better(a: Entry, b: Entry) -> Entry {
    if b.value > a.value || (b.value == a.value && b.id < a.id) {
        return b;
    }
    return a;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    var best = load_entry(lane);
    for (var at = lane + 256u; at < COUNT; at += 2048u) {
        let a = load_entry(at);
        let b = load_entry(at + 256u);
        let c = load_entry(at + 512u);
        let d = load_entry(at + 768u);
        let e = load_entry(at + 1024u);
        let f = load_entry(at + 1280u);
        let g = load_entry(at + 1536u);
        let h = load_entry(at + 1792u);
        best = better(best, better(better(a, b), better(c, d)));
        best = better(best, better(better(e, f), better(g, h)));
    }
    values[lane] = best.value;
    ids[lane] = best.id;
    workgroupBarrier();
    if lane < 16u {
        for (var i = lane + 16u; i < 256u; i += 16u) {
            best = better(best, Entry(values[i], ids[i]));
        }
        values[lane] = best.value;
        ids[lane] = best.id;
    }
    workgroupBarrier();
    if lane == 0u {
        for (var i = 1u; i < 16u; i++) {
            best = better(best, Entry(values[i], ids[i]));
        }
        let next = min(t_state[0] + t_state[1], CAPACITY);
        let is_nan = (bitcast<u32>(best.value) & 0x7fffffffu) > INFINITY_BITS;
        t_ids[next] = select(best.id, NO_ID, is_nan);
        t_state[0] = next;
        t_state[1] = 1u;
    }
}
