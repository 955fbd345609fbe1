"""A weight beside the matrix that it was made of: what that took, and how far the weight is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import format as q4gsw
from wgpu_q4.format.parallel import for_row_ranges
from wgpu_q4.weight import Q4Weight

Rows = Callable[[int, int], NDArray[Any]]
"""Returns the floats ``[stop - start, K]`` of the rows from ``start`` to ``stop``."""


class Source(NamedTuple):
    """A weight, and the matrix that it was made of.

    Attributes:
        weight: the weight.
        kind: how the matrix is stored: a dtype (``"BF16"``), a type of GGUF, or who packed it.
        nbytes: bytes of the matrix in its file.
        rows: its values, or None if the weight wraps the very bytes of the file.
    """

    weight: Q4Weight
    kind: str
    nbytes: int
    rows: Rows | None

    def error(self) -> Error:
        """Return how far the weight is from its source, after one pass over the rows."""
        return Error(0.0, 0.0) if self.rows is None else error_of(self.weight, self.rows)


class Error(NamedTuple):
    """How far a weight is from the matrix that it was made of.

    Attributes:
        rms: root mean square of the differences, over that of the matrix; 0 if all values are kept.
        largest: the largest absolute difference.
    """

    rms: float
    largest: float


def error_of(weight: Q4Weight, rows: Rows) -> Error:
    """Return how far a weight is from ``rows``, in float64 and a few rows at a time."""
    vocab, embed_dim = weight.shape
    moved, squares, largest = np.zeros((3, vocab))

    def compare(start: int, stop: int) -> None:
        values = rows(start, stop).astype(np.float64)
        packed, scales = weight.packed[start:stop], weight.scales[start:stop]
        off = q4gsw.dequantize(packed, scales, weight.convention) - values
        moved[start:stop] = np.square(off).sum(axis=1)
        squares[start:stop] = np.square(values).sum(axis=1)
        largest[start:stop] = np.abs(off).max(axis=1)

    for_row_ranges(vocab, embed_dim * 8, compare)
    rms = float(np.sqrt(moved.sum() / squares.sum())) if squares.any() else 0.0
    return Error(rms, float(largest.max()))
