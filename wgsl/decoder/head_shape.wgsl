// The heads of an attention layer, as pipeline constants.
//
// Defines: HEADS, KV_HEADS, HEAD_DIM, CAPACITY.

override HEADS: u32;  // query heads
override KV_HEADS: u32;  // heads of keys and values; they divide the query heads
override HEAD_DIM: u32;  // columns of a head, a multiple of 8 of at most 256
override CAPACITY: u32;  // positions that the cache holds
