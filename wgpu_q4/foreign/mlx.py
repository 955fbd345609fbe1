"""MLX's affine mode in 4 bits: ``u · scale + bias``, packed as q4gsw is.

A matrix with ``bias = −8 · scale`` in each group is q4gsw.  MLX gives a group that bias if its
values reach from −8 to 7 times a step.
"""

from __future__ import annotations

from wgpu_q4.arrays import ArrayLike, DTypeLike
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.grid import Grid, hold, zeros_of_offsets
from wgpu_q4.foreign.integers import FLOATS, check_block, matrix, nibble_bytes
from wgpu_q4.weight import Q4Weight


def from_mlx(
    weight: ArrayLike,
    scales: ArrayLike,
    biases: ArrayLike,
    group_size: int = 64,
    *,
    scales_dtype: DTypeLike | None = None,
    lossy: bool = False,
) -> Q4Weight:
    """Return a 4-bit matrix that ``mlx.core.quantize`` made, in mode affine.

    Args:
        weight: uint32 ``[V, K/8]``.
        scales: floats ``[V, K/G]``.
        biases: floats ``[V, K/G]``.
        group_size: ``G`` that the matrix was made with; 64 is MLX's own default.
        scales_dtype: float16 or float32; by default float16 if that holds each scale exactly.
        lossy: quantize again what cannot be held exactly.

    Raises:
        TypeError: an argument that is no array.
        FormatError: arrays that do not fit each other or ``group_size`` (a matrix of other than 4
            bits does not), or values that q4gsw cannot hold exactly.
    """
    return hold(grid_of_mlx(weight, scales, biases, group_size), scales_dtype, lossy)


def grid_of_mlx(weight: ArrayLike, scales: ArrayLike, biases: ArrayLike, group_size: int) -> Grid:
    """Return what the tensors hold; see `from_mlx`."""
    words = matrix(weight, "weight", "uint32")
    factors, offsets = matrix(scales, "scales", *FLOATS), matrix(biases, "biases", *FLOATS)
    check_block(group_size)
    if factors.shape != offsets.shape or factors.shape != (
        words.shape[0],
        words.shape[1] * 8 // group_size,
    ):
        raise FormatError(
            f"weight of shape {list(words.shape)} is {words.shape[1] * 8} values a row in 4 bits; "
            f"in groups of {group_size}, scales and biases do not have shapes "
            f"{list(factors.shape)} and {list(offsets.shape)}. Check bits and group_size"
        )
    zeros = zeros_of_offsets(factors, offsets)
    return Grid(nibble_bytes(words), factors, zeros)
