"""Floats that lie on a 4-bit grid already: the nibbles and scales that give them, exactly.

A matrix that was dequantized, or read from a file of another 4-bit format, holds in each group no
other values than ``n · s`` with an integer ``n`` from −8 to 7.  To quantize it by the usual rule
would choose another ``s``, and change most values.

The value ``m`` of a group that is largest in magnitude is ``n · s`` for one of few ``n``, so each
gives a candidate ``s = m / n``.  The first that gives all values of the group, to the last bit, is
taken: a positive ``s`` if there is one, and the smallest; else a negative one, which llama.cpp's
Q4_0 has where ``m`` is positive and ``n`` is −8.  Where `wgpu_q4.format.quantize` has put a group
on a grid, that is the same grid again.

A matrix that was rounded after that, to bfloat16 or float16, holds the rounded ``n · s``.  Its
scales are looked for among those of half precision, near ``m / n``: the first that gives all values
of the group when its products are rounded alike.  Several may; they differ by less than the
rounding did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_NEGATIVE = tuple(range(-8, 0))
_POSITIVE = (*range(7, 0, -1), -8)
"""The integers that the largest value may stand for, by its sign, in the order of preference."""


class Rounding(NamedTuple):
    """How values were rounded after they were dequantized.

    Attributes:
        round: rounds float32 to numbers of the dtype, as float32.
        steps: half-precision numbers on each side of ``m / n`` that the scale may be.
    """

    round: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    steps: int


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    bits = values.view(np.uint32)
    even = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return (even & np.uint32(0xFFFF0000)).view(np.float32)


def _to_float16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


_ROUNDINGS = (Rounding(_to_bfloat16, 8), Rounding(_to_float16, 2))


def rounding_of(values: NDArray[np.float32]) -> Rounding | None:
    """Return the rounding that leaves ``values`` as they are, bfloat16's before float16's."""
    for rounding in _ROUNDINGS:
        if np.array_equal(rounding.round(values), values):
            return rounding
    return None


def on_grid(
    groups: NDArray[np.float32], dtype: np.dtype[Any], rounding: Rounding | None = None
) -> tuple[NDArray[np.uint8], NDArray[Any]] | None:
    """Return the nibbles and scales that give ``groups`` exactly; None if a group is on no grid.

    Args:
        groups: finite, ``[rows, K/G, G]``.
        dtype: of the scales, float16 or float32: only its numbers are tried.
        rounding: of the values since; None for none.

    Returns:
        ``(u, scales)``: uint8 like ``groups``, and ``[rows, K/G]`` in ``dtype``.  A group of zeros
        has ``u = 8`` and the scale that the usual rule gives it.
    """
    flat = groups.reshape(-1, groups.shape[-1])
    scales = np.full(len(flat), np.finfo(np.float32).smallest_normal).astype(dtype)
    nibbles = np.full(flat.shape, 8, np.uint8)
    largest = np.take_along_axis(flat, np.abs(flat).argmax(axis=1)[:, None], axis=1)[:, 0]
    for sign, integers in ((-1, _NEGATIVE), (1, _POSITIVE)):
        left = np.flatnonzero(np.sign(largest) == sign)
        for integer in integers:
            for scale in _candidates(largest[left], integer, dtype, rounding):
                values = flat[left]
                fits = _fits(values, scale.astype(np.float32), largest[left], integer, rounding)
                found, at = scale[fits], left[fits]
                scales[at] = found
                nibbles[at] = np.rint(values[fits] / found.astype(np.float32)[:, None]) + 8
                largest[at] = 0
            left = left[largest[left] != 0]
        if left.size:
            return None
    return nibbles.reshape(groups.shape), scales.reshape(groups.shape[:2])


def _candidates(
    largest: NDArray[np.float32], integer: int, dtype: np.dtype[Any], rounding: Rounding | None
) -> Iterator[NDArray[Any]]:
    """Yield the scales of ``dtype`` that may give ``largest`` times ``1 / integer``.

    A product with a half is exact, and so is its quotient; one with a float is rounded, and the
    scale may be a neighbour of the quotient.
    """
    with np.errstate(over="ignore", under="ignore"):
        if rounding is not None:
            below = above = (largest / np.float32(integer)).astype(np.float16)
            yield below.astype(dtype)
            for _ in range(rounding.steps):
                below = np.nextafter(below, np.float16(-np.inf))
                above = np.nextafter(above, np.float16(np.inf))
                yield below.astype(dtype)
                yield above.astype(dtype)
            return
        quotient = (largest / np.float32(integer)).astype(dtype)
        yield quotient
        if dtype == np.float32:
            yield np.nextafter(quotient, np.float32(0))
            yield np.nextafter(quotient, np.float32(np.inf) * np.sign(quotient))


def _fits(
    values: NDArray[np.float32],
    scale: NDArray[np.float32],
    largest: NDArray[np.float32],
    integer: int,
    rounding: Rounding | None,
) -> NDArray[np.bool_]:
    """Tell which groups are ``n · scale``, ``largest`` being ``integer · scale`` (0: done)."""
    rounded = _as_it_is if rounding is None else rounding.round
    with np.errstate(all="ignore"):
        product = rounded(scale * np.float32(integer))
        fits: NDArray[np.bool_] = (largest != 0) & np.isfinite(scale) & (product == largest)
        # Most groups fail here, so that few are looked at as a whole.
        some = np.flatnonzero(fits)
        integers = np.rint(values[some] / scale[some, None])
        within = (integers >= -8) & (integers <= 7)
        exact = within & (rounded(integers * scale[some, None]) == values[some])
        fits[some] = exact.all(axis=1)
    return fits


def _as_it_is(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values
