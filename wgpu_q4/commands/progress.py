"""What a command is doing, on standard error: a bar of tqdm's, or lines of text without it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def bar(**options: Any) -> Iterator[Any]:
    """Yield a bar of tqdm's, or None where there is no terminal or no tqdm."""
    if find_spec("tqdm") is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(leave=False, **options) as shown:
        yield shown


class Progress:
    """The progress of a number of jobs.

    Args:
        shown: a bar of tqdm's, or None for lines of text, one every few seconds.
        total: the number of jobs.
        json: whether standard output is for a JSON object, and for nothing else.

    Attributes:
        left_out: the jobs that do not go here: ``what`` and ``why``.
    """

    def __init__(self, shown: Any, total: int, json: bool) -> None:
        self.left_out: list[dict[str, str]] = []
        self._bar, self._total = shown, total
        self._out = sys.stderr if json else sys.stdout
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

    def attempt(self, title: str, job: Callable[[], T]) -> T | None:
        """Return the result of the next job; say why it is left out if it does not go here."""
        self.begin(title)
        try:
            return job()
        except (ValueError, RuntimeError, MemoryError, OSError) as error:
            self.left_out.append({"what": title, "why": str(error) or type(error).__name__})
            self.say(f"left out: {title}: {self.left_out[-1]['why']}")
            return None

    def say(self, text: str) -> None:
        """Print a line, above the bar."""
        if self._bar is None:
            print(text, file=self._out, flush=True)
        else:
            self._bar.write(text, file=self._out)


@contextmanager
def progress(total: int, json: bool = False) -> Iterator[Progress]:
    """Show the progress of ``total`` jobs."""
    with bar(total=total, unit="job", mininterval=0) as shown:
        yield Progress(shown, total, json)
