"""What the fuzzer calls, and its corpus, which the unit tests read as well (without atheris).

The first byte of an input chooses the reader, the rest is the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file
from wgpu_q4.foreign import UnknownTensorError, from_gguf
from wgpu_q4.pte import inspect_pte

CORPUS = Path(__file__).parent / "corpus"

READERS: tuple[Callable[[str], Any], ...] = (
    lambda path: load_file(path, verify=False),
    lambda path: load_file(path, verify=True),
    lambda path: from_gguf(path, "w"),
    inspect_pte,
)


def read(data: bytes, path: str) -> Any:
    """Return what a reader makes of an input, or None if it refuses it by a typed error.

    Args:
        data: the number of the reader, then the bytes of the file.
        path: where the file is written.
    """
    reader = READERS[data[0] % len(READERS)] if data else READERS[0]
    Path(path).write_bytes(data[1:])
    try:
        return reader(path)
    except (FormatError, UnknownTensorError) as error:
        str(error).encode()  # it can be printed
        return None
