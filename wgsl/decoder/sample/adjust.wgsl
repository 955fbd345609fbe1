// The logits that a draw starts from, and the best of each slice.
//
// A logit of NaN, and one of an id that is not allowed, becomes −∞; infinity becomes the largest
// float. The logit of an id that was seen is multiplied by the penalty if it is negative, and by
// the penalty's inverse if it is not. Ids are bits of words, the lowest first. A workgroup of 256
// invocations takes a slice of SLICE logits, each invocation those that lie 256 apart. The first
// workgroup counts the step, and those of a row clear the histograms that nucleus.wgsl reads.
//
// Grid: rows · ⌈COLUMNS / SLICE⌉ workgroups, those of a row side by side, folded over x and y.
// In range: workgroups past the last row do nothing; columns are below COLUMNS, their words below
// ⌈COLUMNS / 32⌉; t_allowed and t_seen are read only if the flags say that they have so many.
//
// Needs: flags, ALLOWED, PENALIZED, penalty, rows, order.
// Defines: main.

override COLUMNS: u32;  // logits of a row
override SLICE: u32;  // logits of a workgroup

const LANES = 256u;
const HISTOGRAM_WORDS = 2048u;  // of a row: 4 levels of 256 bins of 2 words

@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;  // [rows][COLUMNS], bits of floats
@group(0) @binding(1) var<storage, read> t_in: array<u32>;  // [rows][COLUMNS], bits of logits
@group(0) @binding(2) var<storage, read> t_allowed: array<u32>;  // [rows][⌈COLUMNS / 32⌉], bits
@group(0) @binding(3) var<storage, read> t_seen: array<u32>;  // [rows][⌈COLUMNS / 32⌉], bits
@group(0) @binding(5) var<storage, read_write> t_histograms: array<u32>;  // [rows][HISTOGRAM_WORDS]
@group(0) @binding(6) var<storage, read_write> t_best: array<u32>;  // [rows][⌈COLUMNS / SLICE⌉], orders
@group(0) @binding(7) var<storage, read_write> t_state: array<u32>;  // the number of the step

var<workgroup> best: atomic<u32>;

fn adjusted(row: u32, column: u32) -> u32 {
    let word = row * ((COLUMNS + 31u) / 32u) + column / 32u;
    let bit = 1u << (column % 32u);
    var bits = t_in[row * COLUMNS + column];
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return 0xff800000u;
    }
    if (flags() & ALLOWED) != 0u && (t_allowed[word] & bit) == 0u {
        return 0xff800000u;
    }
    bits = select(bits, 0x7f7fffffu, bits == 0x7f800000u);
    if (flags() & PENALIZED) != 0u && (t_seen[word] & bit) != 0u {
        let factors = penalty();
        bits = bitcast<u32>(bitcast<f32>(bits) * select(factors.y, factors.x, bits > 0x80000000u));
    }
    return bits;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let slices = (COLUMNS + SLICE - 1u) / SLICE;
    let flat = workgroup.y * grid.x + workgroup.x;
    let row = flat / slices;
    if row >= rows() {
        return;
    }
    let slice = flat % slices;
    if flat == 0u && lane == 0u {
        t_state[0] += 1u;
    }
    for (var i = slice * LANES + lane; i < HISTOGRAM_WORDS; i += slices * LANES) {
        t_histograms[row * HISTOGRAM_WORDS + i] = 0u;
    }

    if lane == 0u {
        atomicStore(&best, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    let end = min(COLUMNS, (slice + 1u) * SLICE);
    for (var column = slice * SLICE + lane; column < end; column += LANES) {
        let bits = adjusted(row, column);
        t_out[row * COLUMNS + column] = bits;
        mine = max(mine, order(bits));
    }
    atomicMax(&best, mine);
    workgroupBarrier();
    if lane == 0u {
        t_best[flat] = atomicLoad(&best);
    }
}
