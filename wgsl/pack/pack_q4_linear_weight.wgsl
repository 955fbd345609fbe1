// Rows to blocks: packs a matrix for reading 8 rows at a time.
//
// One invocation makes the two blocks of rows 8·n8 … 8·n8 + 7 and columns 8·k8 … 8·k8 + 7 from one
// word of each row.  x runs over k8, then over n8, flat; workgroups are folded over x and y.
// Rows past V become zero bytes.

// Four nibbles in the low half of `octet`, each moved to the low half of a byte of its own.
fn spread(octet: u32) -> u32 {
    let pairs = ((octet & 0xFFFFu) | (octet << 8u)) & 0x00FF00FFu;
    return (pairs | (pairs << 4u)) & 0x0F0F0F0Fu;
}

fn octet_or_zero(row: u32, k8: u32) -> u32 {
    return select(0u, load_weight_octet(min(row, vocab() - 1u), k8), row < vocab());
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let octets = embed_dim() / 8u;
    let strips = (vocab() + 7u) / 8u;
    let flat = (workgroup.y * grid.x + workgroup.x) * 64u + lane;
    if flat >= octets * strips {
        return;
    }
    let k8 = flat % octets;
    let n8 = flat / octets;
    var first: vec4<u32>;
    var second: vec4<u32>;
    for (var r = 0u; r < 4u; r++) {
        let low = octet_or_zero(8u * n8 + r, k8);
        let high = octet_or_zero(8u * n8 + 4u + r, k8);
        first[r] = spread(low) | (spread(high) << 4u);
        second[r] = spread(low >> 16u) | (spread(high >> 16u) << 4u);
    }
    store_block(n8, 2u * k8, first);
    store_block(n8, 2u * k8 + 1u, second);
}
