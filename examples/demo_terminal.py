"""What the demonstration shows while it loads, and keeps from being shown."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from smollm2 import quiet_libraries

from wgpu_q4 import SoftwareAdapterWarning


@contextmanager
def progress(steps: dict[str, int]) -> Iterator[Any]:
    """A bar on stderr that moves as each named step begins; it goes when all are done.

    Where stderr is no terminal, each step is a line.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    finished = threading.Event()
    done = 0
    with tqdm(
        total=sum(steps.values()),
        disable=not terminal,
        leave=False,
        mininterval=0,
        bar_format="loading {desc:<13} |{bar:24}| {percentage:3.0f}% {elapsed}",
    ) as bar:

        def begin(step: str) -> None:
            nonlocal done
            bar.set_description_str(step, refresh=False)
            bar.update(done - bar.n)
            done += steps[step]
            if not terminal:
                print(f"loading {step}", file=sys.stderr, flush=True)

        def keep_time() -> None:
            while not finished.wait(0.5):
                bar.refresh()

        clock = threading.Thread(target=keep_time, daemon=True)
        clock.start()
        try:
            yield begin
        finally:
            finished.set()
            clock.join()


def be_quiet() -> None:
    """Leave the terminal to the answer: no bars, advice and warnings of the libraries."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Without it, a Mesa driver on a machine without a desktop reports so for every adapter.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    quiet_libraries()
    warnings.filterwarnings("ignore", category=SoftwareAdapterWarning)  # the last lines say it


def streamer(tokenizer: Any) -> Any:
    """Prints tokens as whole words, as soon as a word is whole."""
    from transformers import TextStreamer

    return TextStreamer(tokenizer, skip_special_tokens=True)


def verdict(agree: bool) -> str:
    """Return the word that a comparison prints."""
    return "agree" if agree else "DISAGREE"
