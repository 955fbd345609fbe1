"""The graph that ExecuTorch's Vulkan backend runs: its calls and its constants.

The fields and their numbers are those of ``backends/vulkan/serialization/schema.fbs``.
"""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.errors import FormatError
from wgpu_q4.pte.flatbuffer import Buffer, Table

_HEADER_BYTES = 30
_MAGIC = b"VH00"
_DTYPES = ("bool", "uint8", "int8", "int32", "float16", "float32", "float64", "int64")

# VkGraph, OperatorCall, VkValue, VkTensor, ValueList, VkBytes: the number of each field.
_CHAIN, _VALUES, _CONSTANTS = 1, 2, 5
_NAME, _ARGS = 1, 2
_VALUE_TYPE, _VALUE = 0, 1
_DATATYPE, _DIMS, _CONSTANT_ID = 0, 1, 2
_ITEMS = 0
_NAMED_KEY = 2

# Members of the union GraphTypes.
_TENSOR, _VALUE_LIST = 5, 9


@dataclass(frozen=True)
class Constant:
    """A tensor of the graph that holds named data.

    Attributes:
        key: the name of its bytes.
        dtype: such as ``"uint8"``.
        shape: the dimensions.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A call of an op; ``args`` are numbers of values."""

    op: str
    args: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A delegate's graph.

    Attributes:
        calls: in the order in which they run.
        constants: the values that are tensors with named data, by their numbers.
        lists: the values that are lists of values.
    """

    calls: tuple[Call, ...]
    constants: dict[int, Constant]
    lists: dict[int, tuple[int, ...]]


def read_graph(data: memoryview) -> Graph:
    """Read the graph at the beginning of a delegate's data.

    Raises:
        FormatError: the data is not a graph, or not a whole one.
    """
    if len(data) < _HEADER_BYTES or bytes(data[4:8]) != _MAGIC:
        raise FormatError(f"a Vulkan delegate must have {_MAGIC!r} at byte 4")
    offset, size = (int.from_bytes(data[at : at + 4], "little") for at in (10, 14))
    if size < 1 or offset + size > len(data):
        raise FormatError(f"its graph ends at byte {offset + size:,} of {len(data):,}")
    graph = Buffer(data[offset : offset + size], b"VK").root
    keys = [constant.text(_NAMED_KEY) for constant in graph.tables(_CONSTANTS)]
    values = graph.tables(_VALUES)
    calls = tuple(Call(t.text(_NAME), t.numbers(_ARGS, "i")) for t in graph.tables(_CHAIN))
    for call in calls:
        _check(call.args, values, f"{call.op} takes value")
    constants, lists = {}, {}
    for number, value in enumerate(values):
        kind, held = value.number(_VALUE_TYPE, "B"), value.table(_VALUE)
        if kind == _VALUE_LIST and held is not None:
            lists[number] = held.numbers(_ITEMS, "i")
            _check(lists[number], values, "a list holds value")
        if kind == _TENSOR and held is not None:
            constant = held.number(_CONSTANT_ID, "i")
            if constant >= 0:
                _check((constant,), keys, "a tensor is constant")
                if keys[constant]:
                    dtype = _dtype(held)
                    constants[number] = Constant(keys[constant], dtype, held.numbers(_DIMS, "I"))
    return Graph(calls, constants, lists)


def _dtype(tensor: Table) -> str:
    number = tensor.number(_DATATYPE, "b")
    return _DTYPES[number] if 0 <= number < len(_DTYPES) else f"dtype {number}"


def _check(numbers: tuple[int, ...], there: list[Table] | list[str], what: str) -> None:
    for number in numbers:
        if not 0 <= number < len(there):
            raise FormatError(f"{what} {number} of {len(there)}")
