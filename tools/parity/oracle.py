"""What must come out of a case, and how far a result is from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.parity.cases import Case
from wgpu_q4 import reference

_BITS = {"float32": np.uint32, "float16": np.uint16, "uint32": np.uint32}


def expected(case: Case) -> NDArray[Any]:
    """The right result: ``ids_shape + (K,)`` floats, or uint32 ``[ceil(V/8), K/4, 4]`` blocks."""
    weight = case.matrix()
    if case.op == "embedding":
        ids = case.ids()
        known = (ids >= 0) & (ids < case.vocab)
        right = reference.embedding(np.where(known, ids, 0), weight, case.output)
        right[~known] = 0
        return right
    return blocks(weight.packed_as("linear"))


def without_padding(case: Case, found: NDArray[Any]) -> NDArray[Any]:
    """A result with what is nobody's set to zero: in packed blocks, the rows past the last.

    Their weights multiply nothing: ExecuTorch leaves 8 there, which stands for a weight of zero,
    this package 0.
    """
    if case.op == "embedding":
        return found
    return found & blocks(np.full((case.vocab, case.embed_dim // 2), 0xFF, np.uint8))


def blocks(packed: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Blocks of rows in the linear convention, by the definition of the layout.

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
        ulp: the largest number of floats (or units) that one value is off.
        differing: how many values have other bits; the sign of a zero counts.
        first: where the first of them is, what is there and what should be; empty if none.
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
    bits = _BITS[right.dtype.name]
    found_bits = np.ascontiguousarray(found).view(bits)
    right_bits = np.ascontiguousarray(right).view(bits)
    differs = found_bits != right_bits
    differing = int(np.count_nonzero(differs))
    if not differing:
        return Distance(0, 0)
    place = tuple(int(index) for index in np.argwhere(differs)[0])
    steps = np.abs(_ordered(found_bits[differs], right) - _ordered(right_bits[differs], right))
    first = f"at {list(place)}: {found[place]!s}, not {right[place]!s}"
    return Distance(int(steps.max()), differing, first)


def _ordered(bits: NDArray[Any], like: NDArray[Any]) -> NDArray[np.int64]:
    """Integers in the order of the floats with these bits, neighbours one apart, ±0 both 0."""
    values = bits.astype(np.int64)
    if like.dtype.kind != "f":
        return values
    sign = np.int64(1) << (8 * like.dtype.itemsize - 1)
    return np.where(values & sign, -(values & (sign - 1)), values)
