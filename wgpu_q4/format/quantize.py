"""Floats to nibbles and scales, and back.

There are two rules.  ``"absmax"``, the default, is torchao's ``IntxWeightOnlyConfig(torch.int4,
PerGroup(G))``, symmetric, reproduced value for value: per group ``scale = max|W| / 7.5``, clamped
below at the smallest normal float32, and ``u = clip(rint(W · (1 / scale)), −8, 7) + 8``, all in
float32.  It multiplies by the reciprocal; dividing by the scale gives another nibble in about 0.3 %
of values.  Half-precision scales are the float32 ones rounded at the end, so the nibbles of a
matrix do not depend on the dtype of its scales.

``"mse"`` looks for the scale that leaves the least squared error: `wgpu_q4.format.search`.  Its
nibbles are those nearest to the values with the scale in its dtype.

A matrix that lies on a 4-bit grid in each of its groups keeps its values, under both rules:
`wgpu_q4.format.grid`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import (
    FLOAT_DTYPES,
    ArrayLike,
    DTypeLike,
    FloatDtype,
    float_dtype,
    to_numpy,
)
from wgpu_q4.errors import FormatError
from wgpu_q4.format.grid import on_grid, rounding_of
from wgpu_q4.format.nibbles import Convention, pack_linear, unpack
from wgpu_q4.format.parallel import for_row_ranges
from wgpu_q4.format.search import LEAST_IMPORTANCE, best_scales
from wgpu_q4.format.shape import check_group_size

SMALLEST_NORMAL: dict[FloatDtype, float] = {
    dtype: float(np.finfo(dtype).smallest_normal) for dtype in FLOAT_DTYPES
}
"""The smallest positive number that a dtype holds in full precision."""

_HALF_RANGE = np.float32(7.5)

Rule = Literal["absmax", "mse"]
"""How the scale of a group is chosen."""


def quantize(
    weight: NDArray[Any],
    group_size: int = 32,
    scales_dtype: DTypeLike = "float16",
    *,
    rule: Rule = "absmax",
    importance: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Quantize a float matrix to q4gsw.

    If every group of the matrix holds 4-bit values already (``n · s`` with ``n`` from −8 to 7 and
    ``s`` of ``scales_dtype``), the result dequantizes to the very same matrix.  If such values were
    rounded to bfloat16 or float16 since, and their scales are float16's, the result dequantizes to
    values that round to the matrix.

    Args:
        weight: ``[V, K]``, float16, float32 or float64; computed in float32.
        group_size: ``G``, a multiple of 8 that divides ``K``.
        scales_dtype: float16 or float32, as numpy or torch write it.  In float16 the scale of a
            group whose largest value is below about 5e-4 loses precision, below 2e-7 it becomes
            zero.
        rule: ``"absmax"`` or ``"mse"``.
        importance: of rule ``"mse"``, ``[K]``: how much an error in a column counts, squared, as
            the mean square of an activation does.  None: all alike.
        progress: called with a number of rows each time that so many more are done, as the
            ``update`` of a progress bar of tqdm's is.

    Returns:
        ``(packed, scales)``: uint8 ``[V, K/2]`` in the linear convention, and ``[V, K/G]``.

    Raises:
        TypeError: ``weight`` is not a floating-point array.
        FormatError: the shape or group does not fit, a value is NaN or infinite, a scale exceeds
            float16, or a rule or an importance that does not exist.
    """
    _check_floats(weight)
    if weight.ndim != 2 or weight.shape[0] < 1:
        raise FormatError(f"weight must have shape [V, K] with V ≥ 1, not {list(weight.shape)}")
    vocab, embed_dim = weight.shape
    check_group_size(embed_dim, group_size)
    dtype = np.dtype(float_dtype("scales_dtype", scales_dtype, FormatError))
    columns = _check_rule(rule, importance, embed_dim, group_size)
    packed = np.empty((vocab, embed_dim // 2), np.uint8)
    scales = np.empty((vocab, embed_dim // group_size), dtype)

    def read_groups(start: int, stop: int) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # a float64 beyond float32 is caught as infinite below
            rows = weight[start:stop].astype(np.float32, copy=False)
        return rows.reshape(stop - start, -1, group_size)

    def keep_rows(start: int, stop: int) -> None:
        groups = read_groups(start, stop)
        found = on_grid(groups, dtype) if np.isfinite(groups).all() else None
        if found is None and np.isfinite(groups).all() and (rounding := rounding_of(groups)):
            found = on_grid(groups, dtype, rounding)
        if found is None:
            raise _NotOnGridError
        nibbles, scales[start:stop] = found
        pack_linear(nibbles.reshape(stop - start, embed_dim), packed[start:stop])

    def quantize_rows(start: int, stop: int) -> None:
        groups = read_groups(start, stop)
        largest = np.maximum(groups.max(axis=2), -groups.min(axis=2))
        if not np.isfinite(largest).all():
            raise _not_finite(groups.reshape(stop - start, embed_dim), start)
        smallest = np.float32(SMALLEST_NORMAL["float32"])
        scale = np.maximum(largest / _HALF_RANGE, smallest)
        if rule == "mse":
            found = best_scales(groups, columns)
            np.copyto(scale, found, where=np.abs(found) > smallest)
        with np.errstate(over="ignore"):
            scales[start:stop] = scale
        if not np.isfinite(scales[start:stop]).all():
            raise FormatError(
                f"a group's scale is {np.abs(scale).max():.6g}, beyond float16 (65504): "
                f"use scales_dtype='float32'"
            )
        if rule == "mse":
            held = scales[start:stop, :, None].astype(np.float32)
            values = np.divide(groups, held, out=np.zeros_like(groups), where=held != 0)
        else:
            values = groups * np.reciprocal(scale)[:, :, None]
        np.rint(values, out=values)
        np.clip(values, -8, 7, out=values)
        values += 8
        pack_linear(values.astype(np.uint8).reshape(-1, embed_dim), packed[start:stop])

    try:
        keep_rows(0, 1)  # of other matrices, hardly a row is on a grid
        for_row_ranges(vocab, embed_dim * 4, keep_rows)
    except _NotOnGridError:
        for_row_ranges(vocab, embed_dim * 4, quantize_rows, progress)
    else:
        if progress is not None:
            progress(vocab)
    return packed, scales


def _check_rule(
    rule: object, importance: ArrayLike | None, embed_dim: int, group_size: int
) -> NDArray[np.float32] | None:
    """Return the importance of the columns as ``[K/G, G]``, the greatest 1."""
    if rule not in ("absmax", "mse"):
        raise FormatError(f"rule must be 'absmax' or 'mse', not {rule!r}")
    if importance is None:
        return None
    if rule != "mse":
        raise FormatError("importance is for rule='mse': the rule 'absmax' does not weigh errors")
    given = to_numpy(importance, "importance")
    if given.shape != (embed_dim,) or given.dtype.kind not in "fiu":
        raise FormatError(
            f"importance must be {embed_dim} numbers, one for each column of the matrix, not "
            f"{given.dtype} {list(given.shape)}"
        )
    numbers = given.astype(np.float64)
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() == 0:
        raise FormatError("importance must be finite and not negative, and not zero everywhere")
    shares: NDArray[np.float64] = np.maximum(numbers / numbers.max(), LEAST_IMPORTANCE)
    return shares.astype(np.float32).reshape(-1, group_size)


def quantize_rows(
    read: Callable[[int, int], NDArray[Any]],
    shape: tuple[int, int],
    group_size: int,
    scales_dtype: DTypeLike = "float16",
    *,
    rule: Rule = "absmax",
    importance: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Quantize a matrix that never exists whole as floats; see `quantize`.

    Args:
        read: returns the floats of the rows from ``start`` to ``stop``.
        shape: ``(V, K)``.
        group_size: ``G``.
        scales_dtype: float16 or float32.
        rule: ``"absmax"`` or ``"mse"``.
        importance: of rule ``"mse"``, ``[K]``.
        progress: called with a number of rows each time that so many more are done.

    Raises:
        TypeError: rows that are not floats.
        FormatError: what `quantize` refuses; the message says from where it counts rows.
    """
    vocab, embed_dim = shape
    check_group_size(embed_dim, group_size)
    dtype = float_dtype("scales_dtype", scales_dtype, FormatError)
    packed = np.empty((vocab, embed_dim // 2), np.uint8)
    scales = np.empty((vocab, embed_dim // group_size), dtype)

    def quantize_range(start: int, stop: int) -> None:
        rows = read(start, stop)
        try:
            packed[start:stop], scales[start:stop] = quantize(
                rows, group_size, dtype, rule=rule, importance=importance
            )
        except FormatError as error:
            raise FormatError(f"counting rows from {start}: {error}") from error

    for_row_ranges(vocab, embed_dim * 4, quantize_range, progress)
    return packed, scales


class _NotOnGridError(Exception):
    """Ends the search for a grid at the first group that has none."""


def _check_floats(weight: object) -> None:
    kind = weight.dtype if isinstance(weight, np.ndarray) else type(weight).__name__
    if kind not in (np.float16, np.float32, np.float64):
        raise TypeError(f"weight must be a float16, float32 or float64 array, not {kind}")


def _not_finite(rows: NDArray[np.float32], start: int) -> FormatError:
    row, column = np.argwhere(~np.isfinite(rows))[0]
    return FormatError(
        f"weight[{start + row}, {column}] is {rows[row, column]} in float32; "
        f"every weight must be finite"
    )


def dequantize(
    packed: NDArray[np.uint8], scales: NDArray[Any], convention: Convention
) -> NDArray[np.float32]:
    """``(u − 8) · scale`` as float32 ``[V, K]``, each product rounded once."""
    vocab, embed_dim = packed.shape[0], packed.shape[1] * 2
    groups = scales.shape[1]
    weight = np.empty((vocab, embed_dim), np.float32)

    def dequantize_rows(start: int, stop: int) -> None:
        rows = weight[start:stop]
        np.subtract(unpack(packed[start:stop], convention), np.float32(8), out=rows)
        grouped = rows.reshape(stop - start, groups, -1)
        grouped *= scales[start:stop, :, None].astype(np.float32)

    for_row_ranges(vocab, embed_dim * 4, dequantize_rows)
    return weight
