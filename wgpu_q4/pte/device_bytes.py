"""How many bytes an ExecuTorch runtime holds on the device for a program, read from its graph.

A file stores equal bytes once.  A device may hold them more than once, because a runtime copies a
constant for each op that reads it, into the layout that the op needs ("prepacking").  The rules say
which copies each runtime makes:

* **Vulkan** prepacks a constant for each op, with two exceptions.  `PACK` is cached by value, so
  ops that name one value share its result.  An ``et_vk.prepack`` in the graph is shared by its
  readers.  Before 1.4, a weight-only 4-bit linear used `PACK` as the embedding does; from 1.4 on,
  it uses `PACK_LINEAR`, which is not cached.
* **WebGPU** uploads each value that an op reads once, as it is, and makes one more copy for each
  ``et_vk.prepack``.

To these come the activations, of which several share memory, and the buffers through which inputs
and outputs are transferred, at the largest size of each dynamic dimension.

These sums were compared with the allocators of runtimes built from ExecuTorch's source, on Mesa's
processor driver.  Each copy of a constant has the bytes that are given here, rounded up by the
driver: buffers to 64 bytes, textures to 4 × 4 texels.  The sum of all lacks that rounding, and the
uniforms and temporaries of the runtime, some kilobytes.  Constants of ops that are not named here
count once for each op.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wgpu_q4.pte.graph import Call, Graph, Tensor

Target = Literal["vulkan>=1.4", "vulkan<1.4", "webgpu"]
"""ExecuTorch's runtimes, as far as they differ here, with the version of the runtime."""

TARGETS: tuple[Target, ...] = ("vulkan>=1.4", "vulkan<1.4", "webgpu")

PACK = "pack_q4_linear_weight"
"""Blocks of 8 rows × 4 columns, read by the embedding and by the linear with 8-bit activations."""

PACK_LINEAR = "pack_q4_linear_weight__w_4x8_nc_buffer"
"""The same blocks in another order, read by the weight-only linear from 1.4 on."""

COPY = "copy"

_PREPACK = "et_vk.prepack.default"
_EMBEDDING = "et_vk.embedding_q4gsw.default"
_LINEAR = "et_vk.linear_q4gsw.default"
_LINEAR_8BIT = "et_vk.linear_dq8ca_q4gsw.default"

_ITEM_BYTES = {"bool": 1, "uint8": 1, "int8": 1, "float16": 2, "int64": 8, "float64": 8}
_BLOCK_ROWS, _TEXEL = 8, 4


@dataclass(frozen=True)
class DeviceCopy:
    """One copy of a constant on the device.

    Attributes:
        key: the name of the constant's bytes in the file.
        kernel: `PACK`, `PACK_LINEAR` or `COPY`: what arranged the copy.
        nbytes: the bytes that it takes.
        ops: the ops that read it.
    """

    key: str
    kernel: str
    nbytes: int
    ops: tuple[str, ...]


@dataclass(frozen=True)
class DeviceMemory:
    """What a runtime holds on the device after it has loaded a program.

    Attributes:
        target: which runtime.
        copies: the copies of constants, in the order of the ops that make them.
        activations: bytes of all other tensors.
        transfers: bytes of the buffers through which inputs and outputs are transferred.
    """

    target: Target
    copies: tuple[DeviceCopy, ...]
    activations: int
    transfers: int

    @property
    def constants(self) -> int:
        """Bytes of all copies of constants."""
        return sum(copy.nbytes for copy in self.copies)

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self.constants + self.activations + self.transfers


def device_memory(graphs: Sequence[Graph], target: Target) -> DeviceMemory:
    """Return what a runtime holds for the delegates of a program."""
    return DeviceMemory(
        target,
        tuple(copy for graph in graphs for copy in _copies(graph, target)),
        sum(_activations(graph, target) for graph in graphs),
        sum(_transfers(graph, target) for graph in graphs),
    )


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Return the bytes of a packed matrix ``[V, K/2]`` in blocks: V is rounded up to 8 rows."""
    rows = -(-shape[0] // _BLOCK_ROWS) * _BLOCK_ROWS
    return rows * shape[1]


def _copies(graph: Graph, target: Target) -> Iterable[DeviceCopy]:
    copies: dict[object, DeviceCopy] = {}
    for number, call in enumerate(graph.calls):
        for value in dict.fromkeys(_constants(graph, call)):
            slot, kernel, nbytes = _copy(graph, number, value, target)
            known = copies.get(slot)
            ops = (call.op,) if known is None else (*known.ops, call.op)
            copies[slot] = DeviceCopy(graph.tensors[value].key, kernel, nbytes, ops)
    return copies.values()


def _copy(graph: Graph, number: int, value: int, target: Target) -> tuple[object, str, int]:
    """Return the copy of a constant that a call reads: its slot, its kernel and its bytes.

    Reads of one slot share a copy.
    """
    call, tensor = graph.calls[number], graph.tensors[value]
    own = number, value
    if call.op == _PREPACK:
        made = graph.tensors.get(call.args[-1], tensor)
        return own, COPY, _bytes(made, target)
    if target == "webgpu":
        return value, COPY, _in_buffer(tensor)
    if value != _matrix(graph, call) or len(tensor.shape) != 2:
        return own, COPY, _in_buffer(tensor)
    if call.op == _LINEAR and target == "vulkan>=1.4":
        return own, PACK_LINEAR, packed_bytes(tensor.shape)
    return (PACK, value), PACK, packed_bytes(tensor.shape)


def _matrix(graph: Graph, call: Call) -> int | None:
    """Return the number of the packed matrix that a call reads in blocks, or None."""
    place = {_EMBEDDING: 0, _LINEAR: 1, _LINEAR_8BIT: 3}.get(call.op)
    if place is None or len(call.args) <= 5:
        return None
    if call.op == _EMBEDDING and not graph.flags.get(call.args[4], False):
        return None  # rows in the embedding convention are copied as they are
    return call.args[place]


def _constants(graph: Graph, call: Call) -> Iterator[int]:
    """Yield the constants among the arguments of a call, and in the lists among them."""
    for argument in call.args:
        for value in graph.lists.get(argument, (argument,)):
            if value in graph.tensors and graph.tensors[value].key:
                yield value


def _activations(graph: Graph, target: Target) -> int:
    """Return the bytes of the tensors that are neither constants nor copies of them.

    Tensors of one memory are never needed at the same time, and take the space of the largest.
    """
    copies = {call.args[-1] for call in graph.calls if call.op == _PREPACK and call.args}
    sizes: dict[object, int] = {}
    for number, tensor in graph.tensors.items():
        if tensor.key or number in copies:
            continue
        memory = ("own", number) if tensor.memory < 0 else tensor.memory
        sizes[memory] = max(sizes.get(memory, 0), _bytes(tensor, target))
    return sum(sizes.values())


def _transfers(graph: Graph, target: Target) -> int:
    """Return the bytes of the buffers for inputs and outputs.  WebGPU writes inputs without one."""
    ends = graph.outputs if target == "webgpu" else (*graph.inputs, *graph.outputs)
    return sum(_bytes(graph.tensors[end], target) for end in ends if end in graph.tensors)


def _bytes(tensor: Tensor, target: Target) -> int:
    """Return the bytes of a tensor in its storage: a texture holds whole texels."""
    if target == "webgpu" or not tensor.storage.startswith("texture"):
        return _in_buffer(tensor)
    shape = [1] * (3 - len(tensor.shape)) + list(tensor.shape)
    shape[tensor.packed] = -(-shape[tensor.packed] // _TEXEL) * _TEXEL
    return math.prod(shape) * _item_bytes(tensor)


def _in_buffer(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * _item_bytes(tensor)


def _item_bytes(tensor: Tensor) -> int:
    return _ITEM_BYTES.get(tensor.dtype, 4)
