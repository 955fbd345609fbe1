// The shape of the matrix as pipeline constants: divisions by K and G become shifts and multiplies.

override EMBED_DIM: u32;
override GROUP_SIZE: u32;
override VOCAB: u32;

fn embed_dim() -> u32 {
    return EMBED_DIM;
}

fn group_size() -> u32 {
    return GROUP_SIZE;
}

fn vocab() -> u32 {
    return VOCAB;
}
