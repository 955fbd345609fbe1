"""Which shapes, group sizes and dtypes a q4gsw matrix may have.

Every check of the format lives here, so that quantizing, wrapping arrays and reading files refuse
the same things with the same words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import FloatDtype
from wgpu_q4.errors import FormatError

ScalesDtype = FloatDtype

ROW_MULTIPLE = 8
"""K and G are multiples of this: eight nibbles make one 32-bit word, and a word has one scale."""


def check_multiple(group_size: int) -> None:
    """Raise unless ``group_size`` is one that rows of some length have.

    Raises:
        TypeError: ``group_size`` is not an integer.
        FormatError: it is not a positive multiple of 8.
    """
    _check_integer(group_size)
    if group_size < 1 or group_size % ROW_MULTIPLE:
        raise FormatError(
            f"group_size must be a positive multiple of {ROW_MULTIPLE}, not {group_size}"
        )


def _check_integer(group_size: object) -> None:
    if isinstance(group_size, bool) or not isinstance(group_size, (int, np.integer)):
        raise TypeError(f"group_size must be an int, not {type(group_size).__name__}")


def check_group_size(embed_dim: int, group_size: int) -> None:
    """Raise unless ``group_size`` is a multiple of 8 that divides ``embed_dim``, itself one.

    Raises:
        TypeError: ``group_size`` is not an integer.
        FormatError: the sizes do not fit; the message lists the group sizes that would.
    """
    _check_integer(group_size)
    if embed_dim < ROW_MULTIPLE or embed_dim % ROW_MULTIPLE:
        raise FormatError(
            f"rows have K = {embed_dim} values; q4gsw needs a positive multiple of "
            f"{ROW_MULTIPLE}. Pad the matrix with zero columns"
        )
    if group_size < 1 or group_size % ROW_MULTIPLE or embed_dim % group_size:
        sizes = range(ROW_MULTIPLE, embed_dim + 1, ROW_MULTIPLE)
        allowed = ", ".join(str(size) for size in sizes if embed_dim % size == 0)
        raise FormatError(
            f"group_size = {group_size} does not fit rows of K = {embed_dim}: it must divide K and "
            f"be a multiple of {ROW_MULTIPLE}. Allowed here: {allowed}"
        )


_LARGEST_SCALE = float(np.finfo(np.float32).max) / 8
"""The largest scale whose weights, up to 8 times that, are float32 numbers."""


def check_scales(scales: NDArray[Any], rows: NDArray[np.integer[Any]] | None = None) -> None:
    """Raise `FormatError` at the first scale that is NaN, infinite, or too large for float32.

    ``rows`` are the rows of a weight that these scales were taken from; None for all of them.

    A scale is too large if 8 times it exceeds float32: the weight is then infinite, and a product
    with it is NaN in one kernel and a number in another.

    A negative scale is legal: other packers produce them (GGUF's Q4_0 does), and every formula
    here holds.
    """
    finite = np.isfinite(scales)
    if not finite.all():
        at, group = np.argwhere(~finite)[0]
        row = at if rows is None else rows[at]
        raise FormatError(
            f"scales[{row}, {group}] is {scales[at, group]}; every scale must be finite"
        )
    if scales.dtype == np.float32 and scales.size:
        sizes = np.abs(scales)
        at, group = np.unravel_index(int(sizes.argmax()), scales.shape)
        if sizes[at, group] > _LARGEST_SCALE:
            row = at if rows is None else rows[at]
            raise FormatError(
                f"scales[{row}, {group}] is {scales[at, group]}; 8 times that exceeds float32. "
                f"No scale may exceed {_LARGEST_SCALE:.8g}: divide the matrix by a power of two"
            )


def check_shapes(packed: NDArray[Any], scales: NDArray[Any]) -> tuple[int, int, int]:
    """``(V, K, G)`` of a packed matrix and its scales, none of which is read.

    Args:
        packed: ``[V, K/2]`` uint8, two nibbles a byte.
        scales: ``[V, K/G]`` float16 or float32.

    Raises:
        FormatError: wrong rank, dtype or shape, or a group size that is not allowed.
    """
    if packed.dtype != np.uint8:
        raise FormatError(f"packed must be uint8 (two nibbles a byte), not {packed.dtype}")
    if packed.ndim != 2 or packed.shape[0] < 1 or packed.shape[1] < 1:
        raise FormatError(f"packed must have shape [V, K/2] with V ≥ 1, not {list(packed.shape)}")
    if scales.dtype not in (np.float16, np.float32):
        raise FormatError(f"scales must be float16 or float32, native-endian, not {scales.dtype}")
    vocab, embed_dim = packed.shape[0], packed.shape[1] * 2
    if scales.ndim != 2 or scales.shape[0] != vocab or scales.shape[1] < 1:
        raise FormatError(
            f"scales must have shape [V, K/G] = [{vocab}, {embed_dim}/G] beside packed of shape "
            f"{list(packed.shape)}, not {list(scales.shape)}"
        )
    groups = scales.shape[1]
    if embed_dim % groups:
        raise FormatError(
            f"scales has {groups} groups a row, which does not divide K = {embed_dim}"
        )
    check_group_size(embed_dim, embed_dim // groups)
    return vocab, embed_dim, embed_dim // groups
