"""q4gsw: 4-bit, groupwise, symmetric, weight-only quantization, as plain numpy.

``W[n, k] ≈ (u[n, k] − 8) · scale[n, k // G]`` with ``u`` in 0..15.  ``V`` is the number of rows
(the vocabulary), ``K`` the length of a row (the embedding dimension), ``G`` the group size.

Nothing here knows of a GPU or of torch.  One file per idea:

* `shape`     which V, K, G and dtypes are allowed, said once
* `quantize`  floats to nibbles and scales, and back
* `search`    the scales that leave the least error
* `grid`      floats that are on a 4-bit grid already
* `nibbles`   the two byte orders that other software uses, and repacking between them
* `blocks`    the 8-row block layout that ExecuTorch's Vulkan linear reads
* `parallel`  row ranges spread over the cores
"""

from wgpu_q4.format.blocks import blocks_to_rows, rows_to_blocks
from wgpu_q4.format.nibbles import Convention, repack, unpack
from wgpu_q4.format.quantize import SMALLEST_NORMAL, Rule, dequantize, quantize, quantize_rows
from wgpu_q4.format.shape import ScalesDtype

__all__ = [
    "SMALLEST_NORMAL",
    "Convention",
    "Rule",
    "ScalesDtype",
    "blocks_to_rows",
    "dequantize",
    "quantize",
    "quantize_rows",
    "repack",
    "rows_to_blocks",
    "unpack",
]
