"""The ops on arrays, each in the file of its name.

* `embedding`  rows of the matrix by id
* `linear`     activations times the matrix
* `linear_transposed`  gradients of logits times the matrix, for the gradient of the activations
* `argmax`     the id of the largest logit of each row
* `top_k`      the largest logits of each row, and their ids

`forced` chooses kernels by hand.  The ops share the code in `product` and `arguments`.
"""

from wgpu_q4.ops.argmax import argmax
from wgpu_q4.ops.embedding import embedding
from wgpu_q4.ops.forced import forced
from wgpu_q4.ops.linear import kernel_for, linear
from wgpu_q4.ops.linear_transposed import linear_transposed
from wgpu_q4.ops.top_k import TopK, top_k

__all__ = [
    "TopK",
    "argmax",
    "embedding",
    "forced",
    "kernel_for",
    "linear",
    "linear_transposed",
    "top_k",
]
