"""A case as ExecuTorch dispatches it: the resources, the push constants, the grid.

Memory is laid out for the recorded shape of the ids.  Before the kernel runs, the result, and ids
outside their present shape, hold a pattern that no kernel makes.  So a kernel is caught that writes
where it should not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.vulkan.dispatch import Dispatch
from tools.vulkan.resources import (
    Resource,
    SampledImage,
    StorageBuffer,
    StorageImage,
    UniformBuffer,
)
from tools.webgpu_backend import WebGPUHost
from wgpu_q4.check.cases import Case
from wgpu_q4.device.textures import pack_width
from wgpu_q4.format import Convention, rows_to_blocks

_UNTOUCHED: dict[str, Any] = {
    # Not a number, each with a payload that arithmetic does not produce.
    "float32": np.uint32(0x7FC0BEEF),
    "float16": np.uint16(0x7E5A),
    "uint32": np.uint32(0xDEADBEEF),
    "int32": np.uint32(0xDEADBEEF),
}


class StrayWriteError(AssertionError):
    """The kernel wrote outside the result."""


def dispatch(case: Case, spirv: bytes) -> Dispatch:
    """Return the dispatch of ``case`` with the kernel ``spirv``."""
    return _pack(case, spirv) if case.op == "pack" else _embedding(case, spirv)


def result(case: Case, found: NDArray[Any]) -> NDArray[Any]:
    """Return the result of ``case`` out of the contents of binding 0 after the dispatch.

    Raises:
        StrayWriteError: the kernel wrote outside the result.
    """
    if case.op == "pack":
        return found.view(np.uint32)
    inside = _result_region(case, found)
    values = np.ascontiguousarray(inside).reshape(*case.ids_shape, case.embed_dim)
    pattern = _UNTOUCHED[found.dtype.name]
    written = np.count_nonzero(found.view(pattern.dtype) != pattern)
    written_inside = np.count_nonzero(values.view(pattern.dtype) != pattern)
    if written != written_inside:
        raise StrayWriteError(f"{written - written_inside} values written outside the result")
    return values


def run_on_webgpu(case: Case, host: WebGPUHost) -> NDArray[Any]:
    """Return the result of ``case``, an embedding in buffers, on ExecuTorch's WebGPU backend.

    Raises:
        StrayWriteError: something outside the result was written.
    """
    weight, recorded = case.matrix(), math.prod(case.recorded_shape or case.ids_shape)
    convention: Convention = "embedding" if case.weight == "flat" else "linear"
    out = host.buffer(_untouched((recorded, case.embed_dim), case.output))
    step = host.embedding(
        out,
        host.buffer(_flat_ids(case, recorded)),
        host.buffer(weight.packed_as(convention)),
        host.buffer(weight.scales),
        count=math.prod(case.ids_shape),
        embed_dim=case.embed_dim,
        group_size=case.group_size,
        is_linear=convention == "linear",
    )
    return result(case, host.run(step, out))


def _flat_ids(case: Case, recorded: int) -> NDArray[np.int32]:
    """Return the ids, in a buffer that was made for ``recorded`` of them."""
    ids = case.ids()
    flat = np.full(recorded, -1, np.int32)
    flat[: ids.size] = ids.reshape(-1)
    return flat


def _whcn(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of ids as [others, height, width], as textures and the grid have it."""
    padded = (1,) * (3 - len(shape)) + shape
    return padded[0], padded[1], padded[2]


def _untouched(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    pattern = _UNTOUCHED[dtype]
    return np.full(shape, pattern, pattern.dtype).view(dtype)


def _result_region(case: Case, found: NDArray[Any]) -> NDArray[Any]:
    depth, height, width = _whcn(case.ids_shape)
    if case.storage == "buffer":
        return found.reshape(-1, case.embed_dim)[: depth * height * width]
    return found[: depth * height, :width]


def _embedding(case: Case, spirv: bytes) -> Dispatch:
    weight, ids = case.matrix(), case.ids()
    shape = _whcn(case.ids_shape)
    recorded = _whcn(case.recorded_shape or case.ids_shape)
    depth, height, width = recorded
    out: Resource
    indices: Resource
    if case.storage == "buffer":
        out = StorageBuffer(_untouched((depth * height * width, case.embed_dim), case.output))
        indices = StorageBuffer(_flat_ids(case, depth * height * width))
    else:
        texels = (depth * height, width, case.embed_dim // 4, 4)
        out = StorageImage(_untouched(texels, case.output))
        volume = np.full(recorded, -1, np.int32)
        volume[: shape[0], : shape[1], : shape[2]] = ids.reshape(shape)
        indices = SampledImage(pack_width(volume))
    packed: Resource
    if case.weight == "flat":
        packed = StorageBuffer(weight.packed_as("embedding"))
    else:
        blocks = rows_to_blocks(weight.packed_as("linear"))
        in_texture = case.weight == "linear_texture2d"
        packed = SampledImage(blocks.view(np.int32)) if in_texture else StorageBuffer(blocks)
    sizes = np.array([case.embed_dim, *reversed(shape)], np.int32)
    pushed = np.array([case.group_size, case.weight != "flat"], np.int32)
    last = (case.recorded_shape or case.ids_shape)[-1]
    others = math.prod((case.recorded_shape or case.ids_shape)[:-1])
    return Dispatch(
        spirv,
        [out, indices, packed, StorageBuffer(weight.scales), UniformBuffer(sizes)],
        (case.embed_dim // 32, last, others),
        push_constants=pushed.tobytes(),
    )


def _pack(case: Case, spirv: bytes) -> Dispatch:
    strips, quads = -(-case.vocab // 8), case.embed_dim // 4
    in_texture = case.weight == "linear_texture2d"
    blocks = _untouched((strips, quads, 4), "int32" if in_texture else "uint32")
    # Sizes of the packed tensor, width first, then K and V.
    pushed = np.array([quads * 4, strips, 1, 1, case.embed_dim, case.vocab], np.int32)
    return Dispatch(
        spirv,
        [
            StorageImage(blocks) if in_texture else StorageBuffer(blocks),
            StorageBuffer(case.matrix().packed_as("linear")),
        ],
        (case.embed_dim // 8, strips, 1),
        push_constants=pushed.tobytes(),
    )
