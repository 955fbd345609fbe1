"""The graph that ExecuTorch's Vulkan backend runs: its calls, its tensors and its constants.

The fields and their numbers are those of ``backends/vulkan/serialization/schema.fbs``.
"""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.errors import FormatError
from wgpu_q4.pte.flatbuffer import Buffer, Table

_HEADER_BYTES = 30
_MAGIC = b"VH00"
_DTYPES = ("bool", "uint8", "int8", "int32", "float16", "float32", "float64", "int64")

# VkGraph, OperatorCall, VkValue, VkTensor, Bool, ValueList, VkBytes: the number of each field.
_CHAIN, _VALUES, _INPUTS, _OUTPUTS, _CONSTANTS = 1, 2, 3, 4, 5
_NAME, _ARGS = 1, 2
_VALUE_TYPE, _VALUE = 0, 1
_DATATYPE, _DIMS, _CONSTANT_ID, _MEMORY, _STORAGE, _LAYOUT = 0, 1, 2, 3, 4, 5
_FLAG = 0
_ITEMS = 0
_NAMED_KEY = 2

# Members of the union GraphTypes.
_BOOL, _TENSOR, _VALUE_LIST = 4, 5, 9

_DEFAULT = 255
_STORAGES = {0: "buffer", 1: "texture3d", 2: "texture2d", _DEFAULT: "default"}


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
class Tensor:
    """A tensor of the graph, with the largest size of each dynamic dimension.

    Attributes:
        key: the name of its bytes if it is a constant, else an empty string.
        dtype: such as ``"float32"``.
        shape: the dimensions.
        memory: the number of the memory that it shares with other tensors; negative if it has
            memory of its own.
        storage: ``"buffer"``, ``"texture3d"``, ``"texture2d"``, or ``"default"`` if the file
            leaves it to the op that reads it.
        packed: the dimension of which a texel holds four elements: -1, -2 or -3.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    memory: int
    storage: str
    packed: int


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
        tensors: the values that are tensors, by their numbers.
        lists: the values that are lists of values.
        flags: the values that are true or false.
        inputs: the numbers of the inputs.
        outputs: the numbers of the outputs.
    """

    calls: tuple[Call, ...]
    tensors: dict[int, Tensor]
    lists: dict[int, tuple[int, ...]]
    flags: dict[int, bool]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def constants(self) -> dict[int, Constant]:
        """The tensors with named data, by their numbers."""
        return {
            number: Constant(tensor.key, tensor.dtype, tensor.shape)
            for number, tensor in self.tensors.items()
            if tensor.key
        }


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
    tensors, lists, flags = {}, {}, {}
    for number, value in enumerate(values):
        kind, held = value.number(_VALUE_TYPE, "B"), value.table(_VALUE)
        if held is None:
            continue
        if kind == _VALUE_LIST:
            lists[number] = held.numbers(_ITEMS, "i")
            _check(lists[number], values, "a list holds value")
        elif kind == _BOOL:
            flags[number] = bool(held.number(_FLAG, "B"))
        elif kind == _TENSOR:
            tensors[number] = _tensor(held, keys)
    inputs, outputs = graph.numbers(_INPUTS, "I"), graph.numbers(_OUTPUTS, "I")
    _check(inputs + outputs, values, "an input or output is value")
    return Graph(calls, tensors, lists, flags, inputs, outputs)


def _tensor(held: Table, keys: list[str]) -> Tensor:
    constant = held.number(_CONSTANT_ID, "i")
    if constant >= 0:
        _check((constant,), keys, "a tensor is constant")
    storage = held.number(_STORAGE, "B", _DEFAULT)
    layout = held.number(_LAYOUT, "B", _DEFAULT)
    return Tensor(
        key=keys[constant] if constant >= 0 else "",
        dtype=_dtype(held),
        shape=held.numbers(_DIMS, "I"),
        memory=held.number(_MEMORY, "i"),
        storage=_STORAGES.get(storage, f"storage {storage}"),
        packed=-1 - layout if layout < 3 else -1,
    )


def _dtype(tensor: Table) -> str:
    number = tensor.number(_DATATYPE, "b")
    return _DTYPES[number] if 0 <= number < len(_DTYPES) else f"dtype {number}"


def _check(numbers: tuple[int, ...], there: list[Table] | list[str], what: str) -> None:
    for number in numbers:
        if not 0 <= number < len(there):
            raise FormatError(f"{what} {number} of {len(there)}")
