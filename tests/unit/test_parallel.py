"""Work on rows where no thread can be started, as in a browser."""

from __future__ import annotations

import sys
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest

from wgpu_q4.format.parallel import copy_bytes, for_row_ranges


@pytest.fixture
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Python start no threads, and say so, as its builds for browsers do."""

    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sys, "_emscripten_info", SimpleNamespace(pthreads=False), raising=False)
    monkeypatch.setattr(Thread, "start", refuse)


@pytest.mark.usefixtures("_no_threads")
def test_each_range_is_worked_on_in_order() -> None:
    ranges: list[tuple[int, int]] = []
    done: list[int] = []
    for_row_ranges(10, 1 << 18, lambda *each: ranges.append(each), done.append)
    assert ranges == [(0, 4), (4, 8), (8, 10)]
    assert done == [4, 4, 2]


@pytest.mark.usefixtures("_no_threads")
def test_the_first_error_ends_the_work() -> None:
    begun: list[int] = []

    def work(start: int, _stop: int) -> None:
        begun.append(start)
        if start:
            raise ValueError(f"rows from {start} on")

    with pytest.raises(ValueError, match="rows from 4 on"):
        for_row_ranges(12, 1 << 18, work)
    assert begun == [0, 4]


@pytest.mark.usefixtures("_no_threads")
def test_many_bytes_are_copied() -> None:
    source = np.random.default_rng(1).integers(0, 256, 5 << 20, np.uint8)
    target = np.zeros_like(source)
    copy_bytes(source, target)
    np.testing.assert_array_equal(target, source)
