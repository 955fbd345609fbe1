"""A 4-bit matrix as other libraries have it, ``(u − zero) · scale``, and how it becomes a weight.

q4gsw has one zero, 8.  A group with another zero is the same numbers on q4gsw's grid if all its
``u − zero`` are from −8 to 7, or all from −7 to 8: its scale is then negated.  What is left, and
groups that are no multiple of 8, can only be quantized again, which loses something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import format as q4gsw
from wgpu_q4.arrays import DTypeLike, FloatDtype, float_dtype
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.source import error_of
from wgpu_q4.format.nibbles import pack_linear, unpack
from wgpu_q4.format.parallel import for_row_ranges
from wgpu_q4.format.shape import ROW_MULTIPLE
from wgpu_q4.weight import Q4Weight

_ZERO = 8
"""q4gsw's zero."""


@dataclass(frozen=True)
class Grid:
    """The values ``(u − zeros) · scales`` of a ``[V, K]`` matrix, checked for their shapes.

    Attributes:
        packed: uint8 ``[V, K/2]``, ``u`` from 0 to 15 in the linear convention.
        scales: floats ``[V, K/G]``, finite.
        zeros: ``[V, K/G]`` as float64, or None if all are 8.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[Any]
    zeros: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Raise `FormatError` unless the shapes fit each other."""
        if self.packed.ndim != 2 or self.scales.ndim != 2 or 0 in self.packed.shape:
            raise FormatError(
                f"a matrix needs packed values [V, …] and scales [V, K/G], not shapes "
                f"{list(self.packed.shape)} and {list(self.scales.shape)}"
            )
        vocab, embed_dim = self.packed.shape[0], self.packed.shape[1] * 2
        groups = self.scales.shape[1]
        if self.scales.shape[0] != vocab or groups < 1 or embed_dim % groups:
            raise FormatError(
                f"{vocab} rows of K = {embed_dim} values need scales [{vocab}, K/G], not "
                f"{list(self.scales.shape)}"
            )
        if self.zeros is not None and self.zeros.shape != self.scales.shape:
            raise FormatError(
                f"scales of shape {list(self.scales.shape)} need zero points of the same shape, "
                f"not {list(self.zeros.shape)}"
            )
        if self.scales.dtype not in (np.float16, np.float32, np.float64):
            raise FormatError(f"scales must be floats, not {self.scales.dtype}")

    @property
    def shape(self) -> tuple[int, int]:
        """``(V, K)``."""
        return self.packed.shape[0], self.packed.shape[1] * 2

    @property
    def group_size(self) -> int:
        """``G``."""
        return int(self.shape[1] // self.scales.shape[1])

    def values(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows ``start`` to ``stop`` as floats: the values that the other library has."""
        u = unpack(self.packed[start:stop], "linear").reshape(stop - start, -1, self.group_size)
        zeros = _ZERO if self.zeros is None else self.zeros[start:stop, :, None]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
            values = (u - zeros) * self.scales[start:stop, :, None].astype(np.float64)
            return values.reshape(stop - start, -1).astype(np.float32)


def zeros_of_offsets(
    scales: NDArray[Any], offsets: NDArray[Any], at: int = 0
) -> NDArray[np.float64]:
    """Return the zeros of the values ``(u − at) · scales + offsets``, which may be no integers.

    They are exact where they are integers: floats have 24 bits, and a quotient here 53.
    """
    numbers = scales.astype(np.float64)
    quotient = np.zeros(numbers.shape)
    with np.errstate(divide="ignore", over="ignore"):
        np.divide(offsets.astype(np.float64), numbers, out=quotient, where=offsets != 0)
    return at - quotient


def hold(
    grid: Grid,
    scales_dtype: DTypeLike | None = None,
    lossy: bool = False,
    group_size: int | None = None,
) -> Q4Weight:
    """Return the weight of a grid's own values.

    Args:
        grid: the matrix.
        scales_dtype: float16 or float32; by default float16 if that holds each scale exactly.
        lossy: quantize again what q4gsw cannot hold, and round scales to ``scales_dtype``.
        group_size: of the weight: the grid's own by default, or a part of it, or, of a matrix that
            is quantized again, any (32 by default where it fits).

    Raises:
        FormatError: the values cannot be held exactly, and ``lossy`` is False; or a scale is not
            finite, or ``group_size`` does not fit.
    """
    dtype = None if scales_dtype is None else float_dtype("scales_dtype", scales_dtype, FormatError)
    own = grid.group_size
    size = group_size or own
    if own % ROW_MULTIPLE or (own % size and lossy):
        return _again(grid, f"its groups have {own} values", dtype, lossy, group_size)
    if own % size:
        raise FormatError(
            f"its groups have {own} values, which groups of {size} do not divide: leave "
            f"group_size out, or give lossy=True to quantize the matrix again"
        )
    packed, scales = grid.packed, grid.scales
    if grid.zeros is not None and (grid.zeros != _ZERO).any():
        moved, flips, misfits = _moved(grid)
        if misfits:
            reason = (
                f"{misfits:,} of its {scales.size:,} groups hold values beyond −8…7 around their "
                f"zero points, which are from {grid.zeros.min():g} to {grid.zeros.max():g}"
            )
            return _again(grid, reason, dtype, lossy, group_size)
        packed, scales = moved, np.where(flips, -scales, scales)
    scales = _scales(scales, dtype, lossy)
    return Q4Weight(packed, np.repeat(scales, own // size, axis=1) if size != own else scales)


def _moved(grid: Grid) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """Return the nibbles around 8, the groups whose scale is negated, and how many do not fit."""
    vocab, embed_dim = grid.shape
    packed = np.empty_like(grid.packed, order="C")
    flips = np.zeros(grid.scales.shape, np.bool_)
    misfits = np.zeros(vocab, np.int64)
    assert grid.zeros is not None
    zeros = grid.zeros

    def move(start: int, stop: int) -> None:
        nibbles = unpack(grid.packed[start:stop], "linear")
        u = nibbles.reshape(stop - start, -1, grid.group_size)
        zero = zeros[start:stop]
        with np.errstate(invalid="ignore"):
            low, high = u.min(axis=2) - zero, u.max(axis=2) - zero
            whole = zero == np.rint(zero)
            fits = whole & (low >= -8) & (high <= 7)
            flip = whole & ~fits & (low >= -7) & (high <= 8)
        misfits[start:stop] = (~fits & ~flip).sum(axis=1)
        if misfits[start:stop].any():
            return
        integers = u.astype(np.int16) - zero.astype(np.int16)[:, :, None]
        np.negative(integers, out=integers, where=flip[:, :, None])
        pack_linear((integers + _ZERO).astype(np.uint8).reshape(-1, embed_dim), packed[start:stop])
        flips[start:stop] = flip

    for_row_ranges(vocab, embed_dim * 2, move)
    return packed, flips, int(misfits.sum())


def _scales(scales: NDArray[Any], dtype: FloatDtype | None, lossy: bool) -> NDArray[Any]:
    """Return the scales in a dtype that holds them."""
    if not np.isfinite(scales).all():
        return scales.astype(np.float32)  # the weight says which one
    with np.errstate(over="ignore"):
        single, half = scales.astype(np.float32), scales.astype(np.float16)
    tried: dict[FloatDtype, NDArray[Any]] = {"float16": half, "float32": single}
    if dtype is None:
        dtype = "float16" if np.array_equal(half, scales) else "float32"
    found = tried[dtype]
    changed: NDArray[np.bool_] = np.not_equal(found, scales)
    if changed.any() and not lossy:
        with np.errstate(invalid="ignore"):
            off = np.abs(found[changed].astype(np.float64) / scales[changed] - 1).max()
        other = "scales_dtype='float32', or " if dtype == "float16" else ""
        raise FormatError(
            f"{changed.sum():,} of its {scales.size:,} scales are no {dtype} numbers; rounding "
            f"them moves values by up to {off:.2g} of them: give {other}lossy=True"
        )
    return np.ascontiguousarray(found)


def _again(
    grid: Grid, reason: str, dtype: FloatDtype | None, lossy: bool, group_size: int | None
) -> Q4Weight:
    """Return the matrix quantized a second time, or refuse and say what that costs."""
    size = group_size or next((g for g in (32, 16, 8) if grid.shape[1] % g == 0), 32)
    weight = Q4Weight(*q4gsw.quantize_rows(grid.values, grid.shape, size, dtype or "float16"))
    if lossy:
        return weight
    percent = 100 * error_of(weight, grid.values).rms
    raise FormatError(
        f"q4gsw cannot hold this matrix exactly: {reason}. Quantizing it again in groups of {size} "
        f"moves its values by {percent:.1f} % of their rms: give lossy=True for that"
    )
