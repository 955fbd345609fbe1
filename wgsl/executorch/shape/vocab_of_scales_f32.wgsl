// V where the host does not pass it and the weight is padded to whole blocks: the number of rows in
// the buffer of scales.
//
// Needs: t_scales, embed_dim, group_size.
// Defines: vocab.

fn vocab() -> u32 {
    return arrayLength(&t_scales) / (embed_dim() / group_size());
}
