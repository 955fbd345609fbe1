"""What a command is doing, on standard error: a bar of tqdm's, or lines of text without it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """The progress of a number of jobs.

    Args:
        bar: of tqdm, or None for lines of text, one every few seconds.
        total: the number of jobs.
    """

    def __init__(self, bar: Any, total: int) -> None:
        self._bar = bar
        self._total = total
        self._begun = 0
        self._next_line = 0.0

    def begin(self, title: str) -> None:
        """Say that the next job begins."""
        self._begun += 1
        if self._bar is not None:
            self._bar.update(self._begun - 1 - self._bar.n)
            self._bar.set_postfix_str(title)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
            print(f"[{self._begun}/{self._total}] {title}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line to standard output, above the bar."""
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text, file=sys.stdout)


@contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Show the progress of ``total`` jobs."""
    if find_spec("tqdm") is None or not sys.stderr.isatty():
        yield Progress(None, total)
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="job", leave=False, mininterval=0) as bar:
        yield Progress(bar, total)
