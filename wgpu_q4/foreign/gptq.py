"""GPTQ's format, of AutoGPTQ and GPTQModel: 4 bits, packed down the columns.

``qweight``, int32 ``[K/8, V]``, holds eight values of one output in a word, from the lowest nibble
up: transposed, these are q4gsw's own bytes.  ``scales`` is ``[K/G, V]``, and ``qzeros`` int32
``[K/G, V/8]``, packed along V.
The first version of the format stores each zero point minus one, the second as it is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from wgpu_q4.arrays import ArrayLike, DTypeLike, to_numpy
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.compressed_tensors import check_columns
from wgpu_q4.foreign.grid import Grid, hold
from wgpu_q4.foreign.integers import FLOATS, matrix, nibble_bytes, nibbles
from wgpu_q4.weight import Q4Weight


def from_gptq(
    qweight: ArrayLike,
    qzeros: ArrayLike,
    scales: ArrayLike,
    g_idx: ArrayLike | None = None,
    *,
    checkpoint_format: Literal["gptq", "gptq_v2"] = "gptq",
    scales_dtype: DTypeLike | None = None,
    lossy: bool = False,
) -> Q4Weight:
    """Return a 4-bit matrix of a GPTQ checkpoint.

    Args:
        qweight: int32 ``[K/8, V]``.
        qzeros: int32 ``[K/G, V/8]``.
        scales: floats ``[K/G, V]``.
        g_idx: the group of each column.
        checkpoint_format: as in ``quantization_config``: ``"gptq"`` stores zero points minus one,
            ``"gptq_v2"`` as they are.
        scales_dtype: float16 or float32; by default float16 if that holds each scale exactly.
        lossy: quantize again what cannot be held exactly.

    Raises:
        TypeError: an argument that is no array.
        FormatError: arrays that do not fit each other, activation ordering, another
            ``checkpoint_format``, or values that q4gsw cannot hold exactly.
    """
    grid = grid_of_gptq(qweight, qzeros, scales, g_idx, checkpoint_format)
    return hold(grid, scales_dtype, lossy)


def grid_of_gptq(
    qweight: ArrayLike,
    qzeros: ArrayLike,
    scales: ArrayLike,
    g_idx: ArrayLike | None,
    checkpoint_format: str,
) -> Grid:
    """Return what the tensors hold; see `from_gptq`."""
    if checkpoint_format not in ("gptq", "gptq_v2"):
        raise FormatError(
            f"checkpoint_format must be 'gptq' or 'gptq_v2', not {checkpoint_format!r}"
        )
    words, columns = matrix(qweight, "qweight", "int32"), matrix(qzeros, "qzeros", "int32")
    factors = matrix(scales, "scales", *FLOATS)
    vocab, embed_dim = words.shape[1], words.shape[0] * 8
    expected = (factors.shape[0], -(-vocab // 8))
    if columns.shape != expected or factors.shape[1] != vocab:
        raise FormatError(
            f"beside qweight {list(words.shape)} there must be scales [K/G, {vocab}] and qzeros "
            f"[K/G, {expected[1]}], not {list(factors.shape)} and {list(columns.shape)}"
        )
    if g_idx is not None:
        check_columns(to_numpy(g_idx, "g_idx"), embed_dim, factors.shape[0])
    zeros = nibbles(columns, vocab).T.astype(np.float64)
    if checkpoint_format == "gptq":
        zeros += 1
    return Grid(nibble_bytes(words.T), factors.T, zeros)
