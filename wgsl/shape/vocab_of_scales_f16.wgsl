// V where the host does not say it and the weight is padded to whole blocks: as many rows as the
// scales' buffer holds, two scales to a word.
//
// Its length leaves out a half word at the end, which holds the last of an odd number of scales.
// Where a row has several scales, counting one more than the whole words hold finds that last row
// and never finds one too many.  Where a row has one, only whole words count.

fn vocab() -> u32 {
    let row_scales = embed_dim() / group_size();
    return (arrayLength(&t_scales) * 2u + min(row_scales - 1u, 1u)) / row_scales;
}
