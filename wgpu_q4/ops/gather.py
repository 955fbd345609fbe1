"""Rows of a 4-bit matrix by id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import arrays
from wgpu_q4.device.context import BindGroups, Context, context_for
from wgpu_q4.device.roundtrip import ComputePass
from wgpu_q4.device.upload import DeviceWeight
from wgpu_q4.kernels import Dispatch, Layout, OutputDtype, Storage, plan_embedding
from wgpu_q4.ops.arguments import check_indices, check_option, check_weight
from wgpu_q4.weight import Q4Weight


def embedding(
    indices: arrays.ArrayLike,
    weight: Q4Weight,
    dtype: OutputDtype = "float32",
    device: Any = None,
    *,
    layout: Layout | None = None,
    storage: Storage = "buffer",
) -> Any:
    """``(u − 8) · scale`` of the rows that ``indices`` name.

    float32 results are the correctly rounded products, the same bits on every device; float16
    results are those rounded to nearest even.

    Args:
        indices: ids in 0..V − 1, any integer dtype, any shape; numpy or torch.
        weight: ``[V, K]``; the copy on the device is shared with `wgpu_q4.linear`.
        dtype: of the result, ``"float32"`` or ``"float16"``.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.
        layout: how the device holds the weight; None for the layout already there, else the one
            that suits both ops (see `wgpu_q4.kernels`).
        storage: ``"texture3d"`` passes ids and result through textures, as ExecuTorch may.

    Returns:
        ``indices.shape + (K,)``, numpy or torch as ``indices`` is.  No ids give an empty array.

    Raises:
        TypeError: ids that are not integers, or an argument of the wrong kind.
        IndexError: an id outside the vocabulary; nothing is computed.
        ValueError: an option that does not exist.
        DeviceError: no adapter, or a limit of the device is exceeded.
    """
    check_weight(weight)
    output = check_option("dtype", dtype, get_args(OutputDtype))
    check_option("storage", storage, get_args(Storage))
    if layout is not None:
        check_option("layout", layout, get_args(Layout))
    vocab, embed_dim = weight.shape
    ids = check_indices(indices, vocab)
    result = np.empty((*ids.shape, embed_dim), output)
    if ids.size:
        context = context_for(device)
        with context.working():
            resident = context.weight(weight)
            layout, packed = resident.packed(context, weight, layout)
            resident.readers.add("embedding")
            matrix = _Matrix(resident, layout, {"t_weight": packed, "t_scales": resident.scales})
            run = _through_buffers if storage == "buffer" else _through_textures
            run(context, matrix, ids, result)
    return arrays.like(result, indices)


class _Matrix(NamedTuple):
    """A weight on a device, in one of its layouts."""

    resident: DeviceWeight
    layout: Layout
    resources: dict[str, Any]
    """What to bind for it, by the name of the binding."""

    def plan(self, context: Context, ids: int, result: NDArray[Any], storage: Storage) -> Dispatch:
        """The dispatch that looks ``ids`` ids up."""
        return context.plan(
            plan_embedding,
            self.resident.shape,
            ids,
            self.layout,
            "float16" if result.dtype == np.float16 else "float32",
            storage,
            half_support=context.half_support,
        )


def _through_buffers(
    context: Context, matrix: _Matrix, ids: NDArray[np.int32], result: NDArray[Any]
) -> None:
    flat_ids, rows = ids.reshape(-1), result.reshape(ids.size, -1)
    row_bytes = rows.shape[1] * rows.itemsize
    at_a_time = max(1, context.largest_binding // max(row_bytes, 4))
    for start in range(0, ids.size, at_a_time):
        part = flat_ids[start : start + at_a_time]
        out = rows[start : start + at_a_time]
        id_buffer = context.scratch("ids", part.nbytes, "STORAGE", "COPY_DST")
        out_buffer = context.result("embedding", out.nbytes)
        context.write(id_buffer, part)
        sizes = context.sizes(rows.shape[1], part.size, 1, 1, role="embedding")
        resources = {
            "t_out": out_buffer,
            "t_indices": id_buffer,
            "out_sizes": sizes,
            **matrix.resources,
        }
        plan = matrix.plan(context, part.size, result, "buffer")
        groups = matrix.resident.bind_groups
        context.run(partial(_record, context, plan, resources, groups), out)


def _record(
    context: Context,
    plan: Dispatch,
    resources: Mapping[str, Any],
    groups: BindGroups,
    compute_pass: ComputePass,
) -> Any:
    """Append the lookup; returns the buffer of the result."""
    context.dispatch(compute_pass, plan, resources, groups)
    return resources["t_out"]


def _through_textures(
    context: Context, matrix: _Matrix, ids: NDArray[np.int32], result: NDArray[Any]
) -> None:
    """Ids ``[.., c, h, w]`` width-packed in a texture, the result in one of K/4 × w × (c · h)."""
    from wgpu_q4.device.textures import Texture3d, pack_width

    embed_dim = result.shape[-1]
    shape = (1,) * (3 - ids.ndim) + ids.shape
    width, height = shape[-1], shape[-2]
    others = math.prod(shape[:-2])
    texel = "rgba16float" if result.dtype == np.float16 else "rgba32float"
    id_texture = Texture3d(context, (-(-width // 4), height, others), "rgba32sint", "ids")
    out_size = embed_dim // 4, width, height * others
    out_texture = Texture3d(context, out_size, texel, "embedding")
    id_texture.write(pack_width(ids.reshape(others, height, width)))
    sizes = context.sizes(embed_dim, width, height, others, role="embedding")
    resources = {
        "t_out": out_texture.view,
        "t_indices": id_texture.view,
        "out_sizes": sizes,
        **matrix.resources,
    }
    encoder = context.device.create_command_encoder()
    context.encode(encoder, matrix.plan(context, ids.size, result, "texture3d"), resources)
    out_texture.read(encoder, result.reshape(height * others, width, embed_dim))
