// V where the host does not pass it: the number of rows in the weight's buffer of words.
//
// Needs: t_weight, embed_dim.
// Defines: vocab.

fn vocab() -> u32 {
    return arrayLength(&t_weight) / (embed_dim() / 8u);
}
