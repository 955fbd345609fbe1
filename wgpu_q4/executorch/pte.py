"""A ``.pte`` file taken apart by ExecuTorch's own schema code, with every bound checked first.

ExecuTorch trusts its files: an offset beyond the end gives a short slice, a broken table an obscure
exception.  Here a file that is not a program, or not all of one, gives a `FormatError` that says
where it breaks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
    VulkanDelegateHeader,
    flatbuffer_to_vk_graph,
)
from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
from executorch.exir._serialize._program import _ExtendedHeader, _get_extended_header
from executorch.exir.schema import DataLocation

from wgpu_q4.errors import FormatError

_T = TypeVar("_T")

LARGEST_PROGRAM = 64 << 20
"""Bytes of the tables of a program, which hold no weights; Llama's take some hundred kilobytes."""

_VULKAN = "VulkanBackend"
_MAGIC = slice(4, 8)
_SMALLEST = 40
"""Bytes before which a file has no extended header."""


@dataclass(frozen=True)
class Delegate:
    """One part of a program that a backend runs.

    Attributes:
        backend: its id.
        nbytes: of its own data, without the named blobs.
        graph: a ``VkGraph`` if the backend is Vulkan's, else None.
    """

    backend: str
    nbytes: int
    graph: Any


@dataclass(frozen=True)
class Pte:
    """What a file holds.

    Attributes:
        nbytes: of the file.
        program: a ``Program`` of ExecuTorch's schema.
        delegates: those of every method, in order.
        blobs: the named data: for each key, the number of its segment.
        segments: the bytes of each segment.
    """

    nbytes: int
    program: Any
    delegates: tuple[Delegate, ...]
    blobs: dict[str, int]
    segments: tuple[memoryview, ...]


def read_pte(path: str | os.PathLike[str]) -> Pte:
    """Read a program.

    Raises:
        OSError: the file cannot be read.
        FormatError: it is no ``.pte``, or a part of it is missing or broken.
    """
    name = os.fspath(path)
    data = memoryview(Path(path).read_bytes())
    if len(data) < _SMALLEST or bytes(data[_MAGIC])[:2] != b"ET":
        raise FormatError(f"{name} is no ExecuTorch program: it does not begin as a .pte does")
    header = _get_extended_header(bytes(data[: _ExtendedHeader.NUM_HEAD_BYTES]))
    program_size = len(data) if header is None else header.program_size
    base = 0 if header is None else header.segment_base_offset
    if not _SMALLEST <= program_size <= len(data):
        raise FormatError(
            f"{name} is truncated: its program takes {program_size:,} bytes, the file has "
            f"{len(data):,}"
        )
    if program_size > LARGEST_PROGRAM:
        raise FormatError(f"{name}: tables of {program_size:,} bytes are not read here")
    if base and header is not None and base + header.segment_data_size > len(data):
        raise FormatError(
            f"{name} is truncated: its data ends at byte {base + header.segment_data_size:,}, the "
            f"file has {len(data):,}"
        )
    program = _guarded(
        name, "its tables are broken", lambda: _flatbuffer_to_program(bytes(data[:program_size]))
    )
    segments = _guarded(name, "its segments are broken", lambda: _segments(program, data, base))
    blobs = _guarded(name, "its named data is broken", lambda: _named(program, segments))
    delegates = _guarded(
        name,
        "a delegate is broken",
        lambda: tuple(
            _delegate(program, delegate, segments)
            for plan in program.execution_plan
            for delegate in plan.delegates
        ),
    )
    return Pte(len(data), program, delegates, blobs, segments)


def _guarded(name: str, what: str, read: Callable[[], _T]) -> _T:
    """The result of ``read``, whose every failure means a broken file."""
    try:
        return read()
    except FormatError as error:
        raise FormatError(f"{name}: {what}: {error}") from error
    except Exception as error:  # whatever a parser of trusted data may run into
        detail = f"{type(error).__name__}: {str(error).strip() or 'no detail'}"
        raise FormatError(f"{name}: {what} ({detail[:200]})") from error


def _segments(program: Any, data: memoryview, base: int) -> tuple[memoryview, ...]:
    found = []
    for number, segment in enumerate(program.segments or ()):
        start = base + segment.offset
        if not base or segment.offset < 0 or start + segment.size > len(data):
            raise FormatError(
                f"segment {number} ends at byte {start + segment.size:,}, the file has "
                f"{len(data):,}"
            )
        found.append(data[start : start + segment.size])
    return tuple(found)


def _named(program: Any, segments: tuple[memoryview, ...]) -> dict[str, int]:
    blobs: dict[str, int] = {}
    for entry in program.named_data or ():
        if entry.segment_index >= len(segments):
            raise FormatError(
                f"{entry.key!r} is in segment {entry.segment_index} of {len(segments)}"
            )
        if entry.key in blobs:
            raise FormatError(f"{entry.key!r} is there twice")
        blobs[entry.key] = entry.segment_index
    return blobs


def _delegate(program: Any, delegate: Any, segments: tuple[memoryview, ...]) -> Delegate:
    where = delegate.processed
    if where.location == DataLocation.SEGMENT:
        data = segments[where.index]
    else:
        data = memoryview(bytes(program.backend_delegate_data[where.index].data))
    graph = _vulkan_graph(data) if delegate.id == _VULKAN else None
    return Delegate(delegate.id, len(data), graph)


def _vulkan_graph(data: memoryview) -> Any:
    length = VulkanDelegateHeader.EXPECTED_LENGTH
    header = VulkanDelegateHeader.from_bytes(bytes(data[:length]))
    end = header.flatbuffer_offset + header.flatbuffer_size
    if header.flatbuffer_size < 1 or end > len(data):
        raise FormatError(f"its graph ends at byte {end:,} of {len(data):,}")
    return flatbuffer_to_vk_graph(bytes(data[header.flatbuffer_offset : end]))
