// V where the host does not say it: as many rows as the weight's buffer holds.

fn vocab() -> u32 {
    return arrayLength(&t_weight) / (embed_dim() / 32u);
}
