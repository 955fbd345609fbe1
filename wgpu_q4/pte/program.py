"""The parts of a ``.pte`` file: methods, delegates, named data, segments.

A file that is not a program, or not all of one, gives a `FormatError` that says where it breaks.
The fields and their numbers are those of ExecuTorch's ``schema/program.fbs``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from wgpu_q4.errors import FormatError
from wgpu_q4.files.regular import StrPath, checked_path, map_file, shown
from wgpu_q4.pte.flatbuffer import Buffer, Table
from wgpu_q4.pte.graph import Graph, read_graph

_T = TypeVar("_T")

LARGEST_PROGRAM = 64 << 20
"""Bytes of the tables of a program, which hold no weights; Llama's take some hundred kilobytes."""

_VULKAN = "VulkanBackend"
_SMALLEST = 40
"""Bytes of the smallest file that has an extended header."""

# Program, ExecutionPlan, Operator, BackendDelegate, BackendDelegateDataReference, DataSegment,
# SubsegmentOffsets, NamedData: the number of each field.
_PLANS, _INLINE_DATA, _SEGMENTS, _CONSTANT_SEGMENT, _NAMED_DATA = 1, 3, 4, 5, 7
_PLAN_NAME, _OPERATORS, _DELEGATES = 0, 6, 7
_OPERATOR_NAME, _OVERLOAD = 0, 1
_BACKEND, _PROCESSED = 0, 1
_LOCATION, _INDEX = 0, 1
_OFFSET, _SIZE = 0, 1
_SEGMENT_INDEX, _OFFSETS = 0, 1
_KEY, _KEY_SEGMENT = 0, 1

_IN_SEGMENT = 1


@dataclass(frozen=True)
class Delegate:
    """One part of a program that a backend runs.

    Attributes:
        backend: its id.
        nbytes: of its own data, without the named blobs.
        graph: the graph if the backend is Vulkan's, else None.
    """

    backend: str
    nbytes: int
    graph: Graph | None


@dataclass(frozen=True)
class Pte:
    """What a file holds.

    Attributes:
        nbytes: of the file.
        methods: names of the methods.
        operators: the ops outside of delegates.
        delegates: those of every method, in order.
        blobs: the named data: for each key, the number of its segment.
        segments: the bytes of each segment.
        constant_bytes: of constants outside of delegates.
    """

    nbytes: int
    methods: tuple[str, ...]
    operators: tuple[str, ...]
    delegates: tuple[Delegate, ...]
    blobs: dict[str, int]
    segments: tuple[memoryview, ...]
    constant_bytes: int


def read_pte(path: StrPath) -> Pte:
    """Read a program.

    Raises:
        TypeError: not a path.
        OSError: the file cannot be read.
        FormatError: it is no ``.pte``, or a part of it is missing or broken.
    """
    source = checked_path(path)
    name, data = shown(source), map_file(source).data
    if len(data) < _SMALLEST or bytes(data[4:6]) != b"ET":
        raise FormatError(f"{name} is no ExecuTorch program: it does not begin as a .pte does")
    program_size, base = _extended_header(name, data)
    program = _guarded(
        name, "its tables are broken", lambda: Buffer(data[:program_size], b"ET").root
    )
    plans = _guarded(name, "its methods are broken", lambda: program.tables(_PLANS))
    segments = _guarded(name, "its segments are broken", lambda: _segments(program, data, base))
    return Pte(
        len(data),
        _guarded(name, "a method is broken", lambda: tuple(p.text(_PLAN_NAME) for p in plans)),
        _guarded(
            name,
            "an operator is broken",
            lambda: tuple(_operator(op) for plan in plans for op in plan.tables(_OPERATORS)),
        ),
        _guarded(
            name,
            "a delegate is broken",
            lambda: _delegates(program, plans, segments),
        ),
        _guarded(name, "its named data is broken", lambda: _named(program, segments)),
        segments,
        _guarded(name, "its constants are broken", lambda: _constant_bytes(program, segments)),
    )


def _extended_header(name: str, data: memoryview) -> tuple[int, int]:
    """Return the bytes of the tables, and where the segments begin (0: there are none)."""
    if bytes(data[8:12]) != b"eh00":
        return len(data), 0
    length = int.from_bytes(data[12:16], "little")
    program_size, base, data_size = (
        int.from_bytes(data[at : at + 8], "little") for at in (16, 24, 32)
    )
    if not _SMALLEST <= program_size <= len(data):
        raise FormatError(
            f"{name} is truncated: its program takes {program_size:,} bytes, the file has "
            f"{len(data):,}"
        )
    if program_size > LARGEST_PROGRAM:
        raise FormatError(f"{name}: tables of {program_size:,} bytes are not read here")
    end = base + (data_size if length > 24 else 0)
    if base and end > len(data):
        raise FormatError(
            f"{name} is truncated: its data ends at byte {end:,}, the file has {len(data):,}"
        )
    return program_size, base


def _guarded(name: str, what: str, read: Callable[[], _T]) -> _T:
    """Return what ``read`` returns; its errors name the file and the part."""
    try:
        return read()
    except FormatError as error:
        raise FormatError(f"{name}: {what}: {error}") from error


def _segments(program: Table, data: memoryview, base: int) -> tuple[memoryview, ...]:
    found = []
    for number, segment in enumerate(program.tables(_SEGMENTS)):
        size = segment.number(_SIZE, "Q")
        start = base + segment.number(_OFFSET, "Q")
        if not base or start + size > len(data):
            raise FormatError(
                f"segment {number} ends at byte {start + size:,}, the file has {len(data):,}"
            )
        found.append(data[start : start + size])
    return tuple(found)


def _segment(segments: tuple[memoryview, ...], number: int, what: str) -> memoryview:
    if number >= len(segments):
        raise FormatError(f"{what} is in segment {number} of {len(segments)}")
    return segments[number]


def _named(program: Table, segments: tuple[memoryview, ...]) -> dict[str, int]:
    blobs: dict[str, int] = {}
    for entry in program.tables(_NAMED_DATA):
        key, segment = entry.text(_KEY), entry.number(_KEY_SEGMENT, "I")
        _segment(segments, segment, repr(key))
        if key in blobs:
            raise FormatError(f"{key!r} is there twice")
        blobs[key] = segment
    return blobs


def _operator(table: Table) -> str:
    name, overload = table.text(_OPERATOR_NAME), table.text(_OVERLOAD)
    return f"{name}.{overload}" if overload else name


def _delegates(
    program: Table, plans: list[Table], segments: tuple[memoryview, ...]
) -> tuple[Delegate, ...]:
    inline = program.tables(_INLINE_DATA)
    found = []
    for delegate in (item for plan in plans for item in plan.tables(_DELEGATES)):
        backend, where = delegate.text(_BACKEND), delegate.table(_PROCESSED)
        if where is None:
            raise FormatError(f"{backend} has no data")
        index = where.number(_INDEX, "I")
        if where.number(_LOCATION, "b") == _IN_SEGMENT:
            data = _segment(segments, index, f"the data of {backend}")
        elif index < len(inline):
            data = inline[index].raw(0)
        else:
            raise FormatError(f"the data of {backend} is number {index} of {len(inline)}")
        graph = read_graph(data) if backend == _VULKAN else None
        found.append(Delegate(backend, len(data), graph))
    return tuple(found)


def _constant_bytes(program: Table, segments: tuple[memoryview, ...]) -> int:
    constants = program.table(_CONSTANT_SEGMENT)
    if constants is None or not constants.numbers(_OFFSETS, "Q"):
        return 0
    return len(_segment(segments, constants.number(_SEGMENT_INDEX, "I"), "constant data"))
