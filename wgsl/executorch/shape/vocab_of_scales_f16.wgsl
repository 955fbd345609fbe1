// V where the host does not pass it and the weight is padded to whole blocks: the number of rows in
// the buffer of scales, two scales to a word.
//
// The length of the buffer leaves out half a word at the end, which holds the last of an odd number
// of scales. Where a row has several scales, one scale more than those of the whole words is
// counted: the last row is then found, and never a row too many. Where a row has one scale, only
// whole words are counted.
//
// Needs: embed_dim, group_size, t_scales.
// Defines: vocab.

fn vocab() -> u32 {
    let row_scales = embed_dim() / group_size();
    return (arrayLength(&t_scales) * 2u + min(row_scales - 1u, 1u)) / row_scales;
}
