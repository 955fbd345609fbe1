"""Row ranges spread over the cores.

numpy releases the interpreter lock inside its loops, so threads are enough; a range is kept small
so that its temporaries stay in the cache and the peak memory does not follow the matrix.  Python in
a browser starts no threads: there, the caller's thread does all of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RANGE_BYTES = 1 << 20
"""Bytes of the widest temporary that one range makes."""


def most_threads(jobs: int) -> int:
    """Return how many threads share ``jobs``: one a core, and 1 where no others can be started."""
    platform = getattr(sys, "_emscripten_info", None)
    can_start = platform is None or platform.pthreads
    return min(jobs, os.cpu_count() or 1) if can_start else 1


def for_row_ranges(
    rows: int,
    bytes_per_row: int,
    work: Callable[[int, int], None],
    progress: Callable[[int], object] | None = None,
) -> None:
    """Call ``work(start, stop)`` over ``0..rows`` in ranges of about `RANGE_BYTES`.

    Args:
        rows: how many rows there are.
        bytes_per_row: bytes of the widest temporary that ``work`` makes for one row.
        work: fills its own rows of an output array that the caller made.
        progress: called in this thread with a number of rows each time that so many more are done.

    The first exception of any range is raised; ranges not yet begun are dropped.
    """
    step = max(1, RANGE_BYTES // max(1, bytes_per_row))
    ranges = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    report = progress or (lambda _: None)
    threads = most_threads(len(ranges))
    if threads <= 1:
        for start, stop in ranges:
            work(start, stop)
            report(stop - start)
        return
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, *each) for each in ranges]
        try:
            for (start, stop), future in zip(ranges, futures, strict=True):
                future.result()
                report(stop - start)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_COPY_TOGETHER_BYTES = 4 << 20
_COPY_THREADS = 4


class Reordered:
    """Rows that are filled from rows in another order; `copy_bytes` takes them as a target.

    Attributes:
        nbytes: bytes of all rows.
    """

    def __init__(self, rows: NDArray[Any], order: NDArray[np.intp]) -> None:
        """Have row ``order[i]`` of ``rows`` (C-contiguous) filled from row i."""
        self.nbytes = rows.nbytes
        self._rows, self._order = rows.view(np.uint8), order

    def fill(self, source: NDArray[np.uint8]) -> None:
        """Fill the rows from bytes in their own order."""
        self._rows[self._order] = source.reshape(self._rows.shape)


def copy_bytes(source: NDArray[np.uint8], target: NDArray[np.uint8] | Reordered) -> None:
    """``target[:] = source``, by several threads where there is much to copy.

    One thread does not fill a memory bus: 16.8 MB take it 1.2 ms on an H200's host, four 0.4 ms.
    """
    if isinstance(target, Reordered):
        target.fill(source)
        return
    threads = most_threads(_COPY_THREADS)
    if source.nbytes < _COPY_TOGETHER_BYTES or threads == 1:
        np.copyto(target, source)
        return
    step = -(-source.nbytes // threads)
    parts = [slice(start, start + step) for start in range(0, source.nbytes, step)]
    copies = [_copiers().submit(np.copyto, target[part], source[part]) for part in parts[1:]]
    np.copyto(target[parts[0]], source[parts[0]])
    for copy in copies:
        copy.result()


@cache
def _copiers() -> ThreadPoolExecutor:
    """Threads that are kept: to start some for each copy would take as long as the copy."""
    return ThreadPoolExecutor(_COPY_THREADS - 1, "wgpu_q4 copy")
