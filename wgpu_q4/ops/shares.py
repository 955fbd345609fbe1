"""A weight's rows shared out among ranks or devices, and what their candidates amount to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRIP = 8
"""Rows that stay together, as they do in every layout of a weight."""


def share_out(vocab: int, count: int) -> list[range]:
    """Return the rows of each of ``count`` holders, in order: as even as strips of 8 rows allow.

    All but the last that has any hold a multiple of 8.  If there are fewer strips than holders, the
    last ones hold nothing.
    """
    strips = -(-vocab // STRIP)
    each, more = divmod(strips, count)
    ends = [min(STRIP * (each * n + min(n, more)), vocab) for n in range(count + 1)]
    return [range(first, end) for first, end in pairwise(ends)]


def best_of_all(
    values: NDArray[np.float32], ids: NDArray[np.integer[Any]], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the ``k`` largest values of each row and their ids, ordered as `wgpu_q4.top_k` does.

    NaN counts as larger than all else; among equals (−0 and 0 are) the lowest id comes first.

    Args:
        values: ``[M, C]``, the candidates of all holders; any order.
        ids: ``[M, C]``; a negative one stands for no candidate.
        k: at most the number of candidates in each row.

    Returns:
        Both ``[M, k]``.
    """
    is_nan = np.isnan(values)
    sizes = np.where(is_nan, np.float32(0), values)
    order = np.lexsort((ids, -sizes, ~is_nan, ids < 0))[:, :k]  # the last key decides first
    return np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1).astype(np.int64)
