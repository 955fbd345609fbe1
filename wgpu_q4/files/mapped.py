"""Rows of a mapped file, asked for before they are read."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ROWS = 1 << 12
"""Rows that are asked for one by one.  For more of them, the system's own reading ahead is as
good, and asking takes longer."""


def will_need(array: NDArray[Any], rows: NDArray[np.integer[Any]]) -> None:
    """Have the system read some rows of an array, all at once and no others.

    A page that is missing is otherwise read when it is touched: one after another, each with
    dozens of its neighbours.  Arrays that are on no mapped file are left alone.

    Args:
        array: C-contiguous ``[n, m]``.
        rows: indices of rows, in any order.
    """
    mapping = _mapping_of(array)
    if mapping is None or not hasattr(mapping, "madvise") or rows.size > _MOST_ROWS:
        return
    whole = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    first = array.__array_interface__["data"][0] - whole
    row_bytes = array.shape[1] * array.itemsize
    for row in rows.tolist():
        start = first + row * row_bytes
        before = start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, start - before, before + row_bytes)


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the mapped file that an array is a view of."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
