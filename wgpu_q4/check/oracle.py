"""The right result of a case, and how far a result is from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import reference
from wgpu_q4.check.cases import Case


def expected(case: Case) -> NDArray[Any]:
    """Return the right result of ``case``.

    Returns:
        Floats ``ids_shape + (K,)``; for packing uint32 blocks ``[ceil(V/8), K/4, 4]``.
    """
    weight = case.matrix()
    if case.op == "embedding":
        ids = case.ids()
        known = (ids >= 0) & (ids < case.vocab)
        right = reference.embedding(np.where(known, ids, 0), weight, case.output)
        right[~known] = 0
        return right
    return blocks(weight.packed_as("linear"))


def without_padding(case: Case, found: NDArray[Any]) -> NDArray[Any]:
    """Return the result with the padding of packed blocks, the rows past the last, set to zero.

    No product reads the padding.  ExecuTorch fills it with 8, which stands for a weight of zero,
    this package with 0.
    """
    if case.op == "embedding":
        return found
    return found & blocks(np.full((case.vocab, case.embed_dim // 2), 0xFF, np.uint8))


def blocks(packed: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return rows in the linear convention as blocks, by the definition of the layout.

    Component r, byte j of block (n8, k4): column 4·k4 + j of row 8·n8 + r in the low nibble and of
    row 8·n8 + 4 + r in the high one; zeros for rows past the last.
    """
    vocab, half = packed.shape
    values = np.zeros((-(-vocab // 8) * 8, half * 2), np.uint32)
    values[:vocab, 0::2], values[:vocab, 1::2] = packed & 15, packed >> 4
    found = np.zeros((values.shape[0] // 8, half // 2, 4), np.uint32)
    for r in range(4):
        for j in range(4):
            column = values[r::8, j::4] | values[4 + r :: 8, j::4] << np.uint32(4)
            found[..., r] |= column << np.uint32(8 * j)
    return found


@dataclass(frozen=True)
class Distance:
    """How far a result is from the right one.

    Attributes:
        ulp: the largest error of one value, in floats (or units) between found and right.
        differing: how many values have other bits; the sign of a zero counts.
        first: the place of the first such value, what is there and what should be; empty if none.
    """

    ulp: int
    differing: int
    first: str = ""


def distance(found: NDArray[Any], right: NDArray[Any]) -> Distance:
    """Compare a result with the right one, in units in the last place.

    Raises:
        ValueError: they differ in shape or dtype.
    """
    if found.shape != right.shape or found.dtype != right.dtype:
        raise ValueError(
            f"expected {right.dtype} {list(right.shape)}, found {found.dtype} {list(found.shape)}"
        )
    found_bits, right_bits = bits(found), bits(right)
    differs = found_bits != right_bits
    differing = int(np.count_nonzero(differs))
    if not differing:
        return Distance(0, 0)
    place = tuple(int(index) for index in np.argwhere(differs)[0])
    steps = np.abs(_ordered(found_bits[differs], right) - _ordered(right_bits[differs], right))
    first = f"at {list(place)}: {found[place]!s}, not {right[place]!s}"
    return Distance(int(steps.max()), differing, first)


def bits(values: NDArray[Any]) -> NDArray[Any]:
    """Return the bits of floats or integers as unsigned integers of the same size."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _ordered(patterns: NDArray[Any], like: NDArray[Any]) -> NDArray[np.int64]:
    """Return integers in the order of the floats with these bits; ±0 are 0, neighbours 1 apart."""
    values = patterns.astype(np.int64)
    if like.dtype.kind != "f":
        return values
    sign = np.int64(1) << (8 * like.dtype.itemsize - 1)
    return np.where(values & sign, -(values & (sign - 1)), values)
