"""The header of a GGUF file: where each tensor lies.

The metadata (a tokenizer's 256,000 words, say) is stepped over and never built.  Every number in
it is checked against the size of the file in integers of any size, so that none wraps around.
"""

from __future__ import annotations

import struct
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError

_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT_KEY = b"general.alignment"
_SHARDS_KEY = b"split.count"
_DEEPEST = 8

# The numbers of the types of metadata: bytes of a value, or what else it is.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT16, _UINT32, _STRING, _ARRAY = 2, 4, 8, 9


class Tensor(NamedTuple):
    """A tensor's type (GGUF's number), shape (rows first), and where in the file it begins."""

    kind: int
    shape: tuple[int, ...]
    start: int


class Header(NamedTuple):
    """What the header of a GGUF file says.

    Attributes:
        tensors: the tensors by name, of this file alone.
        shards: the number of files that the model is split into; 1 if it is whole.
    """

    tensors: dict[str, Tensor]
    shards: int


class Cursor:
    """Read numbers and strings one after the other, never beyond the end."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._content = content.data
        self.at = 0

    def step(self, size: int) -> memoryview:
        """Return the next ``size`` bytes."""
        start, end = self.at, self.at + size
        if end > len(self._content):
            raise FormatError(f"the file ends before byte {start} + {size}")
        self.at = end
        return self._content[start:end]

    def uint16(self) -> int:
        """Return the next two bytes as a number."""
        return int.from_bytes(self.step(2), "little")

    def uint32(self) -> int:
        """Return the next four bytes as a number."""
        return int.from_bytes(self.step(4), "little")

    def uint64(self) -> int:
        """Return the next eight bytes as a number."""
        return int.from_bytes(self.step(8), "little")

    def string(self) -> bytes:
        """Return the next string: its length, then its bytes."""
        return bytes(self.step(self.uint64()))

    def skip_value(self, kind: int, depth: int = 0) -> None:
        """Step over one value of the metadata."""
        if kind in _SIZES:
            self.step(_SIZES[kind])
        elif kind == _STRING:
            self.step(self.uint64())
        elif kind == _ARRAY and depth < _DEEPEST:
            self._skip_items(self.uint32(), self.uint64(), depth)
        else:
            raise FormatError(f"metadata of type {kind}, {depth} arrays deep, is not read")

    def _skip_items(self, kind: int, count: int, depth: int) -> None:
        if kind in _SIZES:
            self.step(_SIZES[kind] * count)
        elif kind == _STRING:
            self._skip_strings(count)
        else:
            for _ in range(count):  # each takes 12 bytes or more, so the file ends this
                self.skip_value(kind, depth + 1)

    def _skip_strings(self, count: int) -> None:
        content, at, end = self._content, self.at, len(self._content)
        length = struct.Struct("<Q")
        for _ in range(count):
            if at + 8 > end:
                raise FormatError(f"the file ends before byte {at} + 8")
            at += 8 + length.unpack_from(content, at)[0]
        self.at = at
        self.step(0)


def read_header(content: NDArray[np.uint8]) -> Header:
    """Return the tensors of a GGUF file by name, and how many files its model has.

    Args:
        content: every byte of the file.

    Raises:
        FormatError: not GGUF, cut short, big-endian, or a number in it breaks a rule.
    """
    cursor = Cursor(content)
    if bytes(cursor.step(4)) != b"GGUF":
        raise FormatError("GGUF magic invalid")
    version = cursor.uint32()
    if version & 0xFFFF == 0:
        raise FormatError("it is a big-endian GGUF file; convert it with gguf-convert-endian")
    if version not in _VERSIONS:
        raise FormatError(f"it has version {version}")
    tensor_count, entry_count = cursor.uint64(), cursor.uint64()
    alignment, shards = _skip_metadata(cursor, entry_count)
    found: list[tuple[str, int, tuple[int, ...], int]] = []
    for _ in range(tensor_count):
        name = cursor.string()
        count = cursor.uint32()
        sizes = struct.unpack(f"<{count}Q", cursor.step(8 * count))
        kind, offset = cursor.uint32(), cursor.uint64()
        if offset % alignment:
            raise FormatError(f"tensor {name!r} is at offset {offset}, no multiple of {alignment}")
        found.append((_text(name), kind, sizes[::-1], offset))
    data_start = cursor.at + -cursor.at % alignment
    tensors = {name: Tensor(kind, shape, data_start + at) for name, kind, shape, at in found}
    if len(tensors) != len(found):
        raise FormatError("two of its tensors have one name")
    return Header(tensors, shards)


def _skip_metadata(cursor: Cursor, count: int) -> tuple[int, int]:
    """Step over the metadata, and return the alignment of tensors and the number of shards."""
    alignment, shards = _DEFAULT_ALIGNMENT, 1
    for _ in range(count):
        key, kind = cursor.string(), cursor.uint32()
        if key == _SHARDS_KEY and kind == _UINT16:
            shards = max(1, cursor.uint16())
            continue
        if key != _ALIGNMENT_KEY:
            cursor.skip_value(kind)
            continue
        if kind != _UINT32:
            raise FormatError(f"general.alignment must be a uint32, not of type {kind}")
        alignment = cursor.uint32()
        if alignment < 1 or alignment & (alignment - 1):
            raise FormatError(f"general.alignment must be a power of two, not {alignment}")
    return alignment, shards


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"tensor name {name[:80]!r} is not UTF-8: {error.reason}") from error


def tensor_bytes(
    tensor: Tensor, block: tuple[int, int], content: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the bytes of a matrix, ``[V, bytes of a row]``, a view of ``content``.

    Args:
        tensor: two-dimensional.
        block: values and bytes of a block of its type.
        content: every byte of the file.

    Raises:
        FormatError: rows are no whole blocks, or the file ends before the tensor does.
    """
    values, size = block
    if tensor.shape[-1] % values:
        raise FormatError(f"rows of {tensor.shape[-1]} values are no whole blocks of {values}")
    nbytes = prod(tensor.shape) // values * size
    if tensor.start + nbytes > len(content):
        raise FormatError(f"the file ends before byte {tensor.start} + {nbytes}")
    return content[tensor.start : tensor.start + nbytes].reshape(tensor.shape[0], -1)
