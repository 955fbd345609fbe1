// V where the host does not say it and the weight is padded to whole blocks: as many rows as the
// scales' buffer holds.

fn vocab() -> u32 {
    return arrayLength(&t_scales) / (embed_dim() / group_size());
}
