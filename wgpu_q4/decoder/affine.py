"""A matrix of a layer in 4 or 8 bits with a scale and an offset for each 32 columns.

Blocks of some GGUF types are held so without a change: `BLOCKS` has a line for each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.format.nibbles import unpack
from wgpu_q4.format.parallel import for_row_ranges

GROUP = 32
"""Columns that share a scale and an offset."""

Halves = NDArray[np.float16]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class AffineMatrix:
    """A matrix ``[V, K]`` of values ``scale · q + offset``; q is an integer of 4 or 8 bits from 0.

    Attributes:
        packed: uint8 ``[V, K · bits / 8]``; nibbles are in the linear convention.
        pairs: float16 ``[V, K / 32, 2]``: the scale and the offset of each group.
    """

    packed: Bytes
    pairs: Halves

    def __post_init__(self) -> None:
        if not np.isfinite(self.pairs).all():
            raise FormatError("a scale or an offset of a matrix is not finite in float16")

    @property
    def shape(self) -> tuple[int, int]:
        """``(V, K)``."""
        return self.pairs.shape[0], self.pairs.shape[1] * GROUP

    @property
    def bits(self) -> int:
        """Bits of an integer."""
        return 8 * int(self.packed.shape[1]) // self.shape[1]

    def dequantize(self) -> NDArray[np.float32]:
        """Return the values, rounded as numpy rounds float32."""
        numbers = unpack(self.packed, "linear") if self.bits == 4 else self.packed
        groups = numbers.reshape(*self.pairs.shape[:2], GROUP).astype(np.float32)
        scales, offsets = np.moveaxis(self.pairs.astype(np.float32), -1, 0)
        values: NDArray[np.float32] = groups * scales[..., None] + offsets[..., None]
        return values.reshape(self.shape)

    def take(self, rows: NDArray[np.integer]) -> AffineMatrix:
        """Return the matrix of some rows."""
        return AffineMatrix(self.packed[rows], self.pairs[rows])


def _from_q4_1(blocks: Bytes, packed: Bytes, pairs: Halves) -> None:
    """Take blocks of a scale, an offset, and elements i and 16 + i in byte i."""
    pairs[...] = np.ascontiguousarray(blocks[..., :4]).view("<f2")
    even, odd = blocks[..., 4::2], blocks[..., 5::2]
    packed[..., :8] = (even & 0x0F) | (odd << 4)
    packed[..., 8:] = (even >> 4) | (odd & 0xF0)


def _from_q8_0(blocks: Bytes, packed: Bytes, pairs: Halves) -> None:
    """Take blocks of a scale and 32 signed bytes: 128 more makes them unsigned."""
    pairs[..., :1] = np.ascontiguousarray(blocks[..., :2]).view("<f2")
    with np.errstate(over="ignore"):  # an offset that is not finite is refused
        pairs[..., 1] = pairs[..., 0] * np.float16(-128)
    packed[...] = blocks[..., 2:] ^ 0x80


BLOCKS: dict[str, tuple[int, int, Callable[[Bytes, Bytes, Halves], None]]] = {
    "Q4_1": (20, 4, _from_q4_1),
    "Q8_0": (34, 8, _from_q8_0),
}
"""For a type of GGUF: bytes of a block of 32 values, bits of an integer, and what takes blocks."""


def from_blocks(kind: str, data: Bytes) -> AffineMatrix:
    """Return the matrix of blocks of a GGUF type, value for value.

    Args:
        kind: the type, one of `BLOCKS`.
        data: uint8 ``[V, bytes of a row]``.

    Raises:
        FormatError: a scale or an offset that is not finite.
    """
    size, bits, take = BLOCKS[kind]
    blocks = data.reshape(len(data), -1, size)
    packed = np.empty((*blocks.shape[:2], GROUP * bits // 8), np.uint8)
    pairs = np.empty((*blocks.shape[:2], 2), np.float16)

    def rows(start: int, stop: int) -> None:
        take(blocks[start:stop], packed[start:stop], pairs[start:stop])

    for_row_ranges(len(data), data.shape[1], rows)
    return AffineMatrix(packed.reshape(len(data), -1), pairs)
