"""compressed-tensors' ``pack-quantized`` format, W4A16: what llm-compressor writes.

``weight_packed``, int32 ``[V, K/8]``, holds ``q + 8`` from the lowest nibble up: q4gsw's own bytes.
``weight_scale`` is ``[V, K/G]``.  Zero points are packed as ``q`` is, but down the columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, DTypeLike, to_numpy
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.grid import Grid, hold
from wgpu_q4.foreign.integers import FLOATS, matrix, nibble_bytes, nibbles
from wgpu_q4.weight import Q4Weight


def from_compressed_tensors(
    weight_packed: ArrayLike,
    weight_scale: ArrayLike,
    weight_shape: ArrayLike,
    weight_zero_point: ArrayLike | None = None,
    weight_g_idx: ArrayLike | None = None,
    *,
    scales_dtype: DTypeLike | None = None,
    lossy: bool = False,
) -> Q4Weight:
    """Return a 4-bit matrix that compressed-tensors packed.

    Args:
        weight_packed: int32 ``[V, K/8]``.
        weight_scale: floats ``[V, K/G]``.
        weight_shape: ``(V, K)``.
        weight_zero_point: int32 ``[V/8, K/G]`` of an asymmetric matrix.
        weight_g_idx: the group of each column, of a matrix with activation ordering.
        scales_dtype: float16 or float32; by default float16 if that holds each scale exactly.
        lossy: quantize again what cannot be held exactly.

    Raises:
        TypeError: an argument that is no array.
        FormatError: arrays that do not fit each other, activation ordering, or values that q4gsw
            cannot hold exactly.
    """
    tensors = weight_packed, weight_scale, weight_shape, weight_zero_point, weight_g_idx
    return hold(grid_of_compressed_tensors(*tensors), scales_dtype, lossy)


def grid_of_compressed_tensors(
    weight_packed: ArrayLike,
    weight_scale: ArrayLike,
    weight_shape: ArrayLike,
    weight_zero_point: ArrayLike | None,
    weight_g_idx: ArrayLike | None,
) -> Grid:
    """Return what the tensors hold; see `from_compressed_tensors`."""
    shape = to_numpy(weight_shape, "weight_shape").reshape(-1).tolist()
    words = matrix(weight_packed, "weight_packed", "int32")
    scales = matrix(weight_scale, "weight_scale", *FLOATS)
    if len(shape) != 2 or words.shape != (shape[0], -(-shape[1] // 8)) or shape[1] % 8:
        raise FormatError(
            f"weight_packed of 4 bits must have shape [V, K/8], K a multiple of 8, beside "
            f"weight_shape = {shape}, not {list(words.shape)}"
        )
    if weight_g_idx is not None:
        check_columns(to_numpy(weight_g_idx, "weight_g_idx"), shape[1], scales.shape[1])
    zeros = None
    if weight_zero_point is not None:
        columns = matrix(weight_zero_point, "weight_zero_point", "int32")
        zeros = nibbles(columns.T, shape[0]).T.astype(np.float64)
    return Grid(nibble_bytes(words), scales, zeros)


def check_columns(groups: NDArray[np.int32], embed_dim: int, count: int) -> None:
    """Raise unless column k is in group ``k // G``, or no column has a group (−1 each).

    Raises:
        FormatError: the columns are in another order, that of the activations.
    """
    expected = np.arange(embed_dim) * count // embed_dim
    if groups.shape == expected.shape and (
        np.array_equal(groups, expected) or bool((groups == -1).all())
    ):
        return
    moved = int((groups != expected).sum()) if groups.shape == expected.shape else groups.size
    raise FormatError(
        f"{moved:,} of {embed_dim:,} columns are in another group than their place says (g_idx: "
        f"activation ordering), which q4gsw has no room for. Dequantize the matrix with the "
        f"library that wrote it and give it to Q4Weight.quantize"
    )
