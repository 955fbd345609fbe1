"""The header of a safetensors file: where each tensor lies, written and read.

A file is the length of the header (8 bytes, little-endian), the header (JSON), and the data.  The
tensors cover the data exactly: no byte belongs to two of them or to none.  Files of this package
come from anywhere, so nothing in a header is believed before it is checked, and each tensor costs
a few hundred bytes at most while the header is read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError

LARGEST_HEADER = 100_000_000
"""Bytes of the longest header that is read: the limit of the safetensors library."""

METADATA = "__metadata__"

_ALIGNMENT = 8
_LENGTH = 8
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of a value.  A tensor of another dtype is left alone, as long as it lies in the file."""


_MOST_DIMENSIONS, _TOO_LARGE = 64, 1 << 63
"""Beyond these no array exists, and the product of a shape could take for ever."""

_FIELDS = {"dtype", "shape", "data_offsets"}


class Tensor(NamedTuple):
    """A tensor's dtype (safetensors' name), shape, and bytes ``start`` to ``stop`` of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What a header says.

    Attributes:
        tensors: the tensors by name.
        metadata: the texts that the writer added.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes before the data, padded so that the data begins at a multiple of 8."""
    content: dict[str, Any] = {METADATA: dict(metadata)}
    for name, tensor in tensors.items():
        offsets = [tensor.start, tensor.stop]
        content[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH, "little") + text


def read_header(content: NDArray[np.uint8]) -> tuple[Header, NDArray[np.uint8]]:
    """Return the header of a file and the data behind it, a view of ``content``.

    Args:
        content: every byte of the file.

    Raises:
        FormatError: the file is cut short or longer than its tensors, or its header breaks a rule.
    """
    if len(content) < _LENGTH:
        raise FormatError(f"it has {len(content)} bytes, and the length of a header takes 8")
    length = int.from_bytes(content[:_LENGTH].tobytes(), "little")
    if length > LARGEST_HEADER:
        raise FormatError(f"header too large: {length:,} bytes, of {LARGEST_HEADER:,} at most")
    start = _LENGTH + length
    if start > len(content):
        raise FormatError(f"invalid header length: {length:,} of {len(content):,} bytes")
    header = _parse(content[_LENGTH:start])
    data = content[start:]
    for name, tensor in header.tensors.items():
        _check_tensor(name, tensor, len(data))
    _check_covered(header.tensors, len(data))
    return header, data


def _parse(text: NDArray[np.uint8]) -> Header:
    try:
        content = json.loads(str(text.data, "utf-8"), object_pairs_hook=_compact)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"invalid JSON in header: {error}") from error
    if not isinstance(content, dict):
        raise FormatError("invalid header: its JSON is not an object")
    metadata = content.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"invalid header: {METADATA!r} must be an object of strings")
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor):
            raise FormatError(
                f"invalid header: tensor {name[:80]!r} must be an object of a 'dtype' (a string), "
                f"a 'shape' (at most 64 integers from 0 up) and 'data_offsets' (two of them)"
            )
    return Header(content, metadata)


def _compact(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Tensor:
    """Return a JSON object as a dict, or as a `Tensor`, which is much smaller."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise FormatError("invalid header: a name is there twice")
    if content.keys() != _FIELDS:
        return content
    dtype, shape, offsets = content["dtype"], content["shape"], content["data_offsets"]
    if type(dtype) is str and type(shape) is list and type(offsets) is list and len(offsets) == 2:
        numbers = shape + offsets
        small = len(shape) <= _MOST_DIMENSIONS and set(map(type, numbers)) == {int}
        if small and min(numbers) >= 0 and max(numbers) < _TOO_LARGE:
            return Tensor(sys.intern(dtype), tuple(shape), *offsets)
    return content


def _check_tensor(name: str, tensor: Tensor, size: int) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"tensor name {name[:80]!r} is not valid: {error.reason}") from error
    bits = _BITS.get(tensor.dtype)
    taken = 8 * (tensor.stop - tensor.start)
    if taken < 0 or tensor.stop > size or (bits is not None and prod(tensor.shape) * bits != taken):
        raise FormatError(
            f"tensor {name[:80]!r} of {tensor.dtype[:20]} {list(tensor.shape[:8])} cannot take "
            f"bytes {tensor.start} to {tensor.stop} of {size:,}"
        )


def _check_covered(tensors: Mapping[str, Tensor], size: int) -> None:
    """Raise unless the tensors, one after the other, are the data: ``size`` bytes."""
    count = len(tensors)
    starts = np.fromiter((tensor.start for tensor in tensors.values()), np.int64, count)
    stops = np.fromiter((tensor.stop for tensor in tensors.values()), np.int64, count)
    order = np.lexsort((stops, starts))
    begins, ends = np.append(starts[order], size), np.append(0, stops[order])
    wrong = np.flatnonzero(begins != ends)
    if wrong.size:
        at = min(begins[wrong[0]], ends[wrong[0]])
        raise FormatError(f"its data is not fully covered, or twice, at byte {at:,} of {size:,}")
