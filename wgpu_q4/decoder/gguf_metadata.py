"""The metadata of a GGUF file: numbers, words and short lists of numbers, by key.

`wgpu_q4.foreign.gguf_header` steps over the metadata; this reads the part of it that says what
shape a model has.  Long lists (a tokenizer's words) are left out.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.gguf_header import Cursor

Value = int | float | bool | str | tuple[int | float | bool, ...]

_FORMATS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""The numbers of GGUF's types of numbers, as `struct` writes them."""

_STRING, _ARRAY = 8, 9
_LONGEST = 1024
"""The most numbers of a list that is read."""

_MOST = 1 << 24


def read_metadata(content: NDArray[np.uint8]) -> dict[str, Value]:
    """Return the metadata of a GGUF file whose header `read_header` has taken.

    Args:
        content: every byte of the file.

    Raises:
        FormatError: the metadata is cut short, or has a type that GGUF does not know.
    """
    cursor = Cursor(content)
    cursor.step(8)  # magic and version
    cursor.uint64()  # tensors
    found: dict[str, Value] = {}
    for _ in range(cursor.uint64()):
        key, kind = cursor.string().decode(errors="replace"), cursor.uint32()
        value = _value(cursor, kind)
        if value is not None:
            found[key] = value
    return found


def _value(cursor: Cursor, kind: int) -> Value | None:
    if kind == _STRING:
        return cursor.string().decode(errors="replace")
    if kind in _FORMATS:
        return _numbers(cursor, kind, 1)[0]
    start = cursor.at
    if kind == _ARRAY:
        item, count = cursor.uint32(), cursor.uint64()
        if item in _FORMATS and count <= _LONGEST:
            return _numbers(cursor, item, count)
        cursor.at = start
    cursor.skip_value(kind)
    return None


def _numbers(cursor: Cursor, kind: int, count: int) -> tuple[int | float | bool, ...]:
    layout = f"<{count}{_FORMATS[kind]}"
    return struct.unpack(layout, cursor.step(struct.calcsize(layout)))


class Metadata:
    """The metadata of one model: keys that begin with its architecture.

    Attributes:
        architecture: the model's, as GGUF calls it.
    """

    def __init__(self, values: dict[str, Value]) -> None:
        self._values = values
        self.architecture = str(values.get("general.architecture", ""))

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number of the architecture.

        Raises:
            FormatError: it is missing and has no default, or is something else.
        """
        value = self._values.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise FormatError(f"the file does not say {self.architecture}.{key}")
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]  # one for each layer, all the same
        if not isinstance(value, (int, float)):
            raise FormatError(
                f"{self.architecture}.{key} must be a number, not {value!r}: the decoder has "
                f"layers of one shape"
            )
        return value

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a number of the architecture that counts something.

        Raises:
            FormatError: as for `number`; or no integer in ``least`` … 2^24.
        """
        value = self.number(key, default)
        if not (isinstance(value, int) and least <= value <= _MOST):
            raise FormatError(
                f"{self.architecture}.{key} must be an integer in {least} … {_MOST}, not {value!r}"
            )
        return value

    def word(self, key: str, default: str) -> str:
        """Return a word of the architecture."""
        return str(self._values.get(f"{self.architecture}.{key}", default))

    def has(self, key: str) -> bool:
        """Tell if the architecture has that key."""
        return f"{self.architecture}.{key}" in self._values

    def ids(self, *keys: str) -> tuple[int, ...]:
        """Return the ids that are there under keys of the tokenizer, each once."""
        found = (self._values.get(f"tokenizer.ggml.{key}") for key in keys)
        return tuple(dict.fromkeys(id_ for id_ in found if isinstance(id_, int)))
