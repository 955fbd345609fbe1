"""Rows of a 4-bit matrix by id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, DTypeLike, FloatDtype, HostArray, float_dtype, like
from wgpu_q4.device.array import DeviceArray
from wgpu_q4.device.context import Context, context_for, is_host
from wgpu_q4.device.pipelines import encode
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.format.parallel import Reordered
from wgpu_q4.kernels import plan_embedding
from wgpu_q4.ops.arguments import check_indices, check_weight
from wgpu_q4.ops.forced import Choices, current_choices
from wgpu_q4.ops.host import look_up
from wgpu_q4.ops.lookup import Lookup, by_part, group_steps, lookup_steps
from wgpu_q4.ops.on_device import ArrayWorkspace, check_out, context_of, refuse_out, whole
from wgpu_q4.ops.several import Share, is_several, on_each, shares_of
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    import torch


@overload
def embedding(
    indices: HostArray,
    weight: Q4Weight,
    dtype: DTypeLike = "float32",
    device: Any = None,
) -> NDArray[Any]: ...
@overload
def embedding(
    indices: torch.Tensor,
    weight: Q4Weight,
    dtype: DTypeLike = "float32",
    device: Any = None,
) -> torch.Tensor: ...
@overload
def embedding(
    indices: DeviceArray,
    weight: Q4Weight,
    dtype: DTypeLike = "float32",
    device: Any = None,
    *,
    out: DeviceArray | None = None,
) -> DeviceArray: ...
def embedding(
    indices: ArrayLike | DeviceArray,
    weight: Q4Weight,
    dtype: DTypeLike = "float32",
    device: Any = None,
    *,
    out: DeviceArray | None = None,
) -> NDArray[Any] | torch.Tensor | DeviceArray:
    """Return ``(u − 8) · scale`` of the rows that ``indices`` name.

    float32 results are the correctly rounded products, the same bits on every device; float16
    results are those rounded to nearest even.

    Args:
        indices: ids in 0..V − 1, any integer dtype, any shape; numpy, torch, a list, or a device
            array.  Nobody looks at the ids of a device array before the kernel does: one outside
            of the vocabulary gives zeros.
        weight: ``[V, K]``; the copy on the device is shared with `wgpu_q4.linear`.
        dtype: of the result, float32 or float16, as numpy or torch write it.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.
            ``"host"`` dequantizes on the processor, with the same bits: only the pages of a mapped
            file that hold these rows are read, so the matrix may be larger than memory.
            A list of devices: each holds a share of the rows, in every op.
        out: for device arrays: the `DeviceArray` to write to, of the result's shape and dtype.

    Returns:
        ``indices.shape + (K,)``, torch or a device array if ``indices`` is, else numpy.  No ids
        give an empty array.

    Raises:
        TypeError: ids that are not integers, or an argument of the wrong kind.
        IndexError: an id of the host outside the vocabulary; nothing is computed.
        ValueError: another dtype, or an ``out`` that does not fit.
        FormatError: a scale of these rows that q4gsw does not allow, in a file that was loaded
            without reading all scales.
        DeviceError: no adapter, or a limit of the device is exceeded; device arrays that are on
            several devices, freed, or not computed yet.
    """
    if isinstance(indices, DeviceArray):
        return _look_up_on_device(indices, weight, dtype, device, out)
    refuse_out(out, "indices")
    vocab, embed_dim = check_weight(weight)
    ids = check_indices(indices, vocab)
    output = float_dtype("dtype", dtype)
    result = np.empty((*ids.shape, embed_dim), output)
    if ids.size and is_host(device):
        look_up(weight, ids.reshape(-1), result.reshape(-1, embed_dim))
    elif ids.size and is_several(device):
        _look_up_on_each(weight, ids.reshape(-1), output, result.reshape(-1, embed_dim), device)
    elif ids.size:
        _look_up(weight, ids, output, result, device)
    return like(result, indices)  # type: ignore[no-any-return]


def _look_up(
    weight: Q4Weight,
    ids: NDArray[np.int32],
    output: FloatDtype,
    result: NDArray[Any],
    device: Any,
) -> None:
    """Fill ``result``, ``ids.shape + (K,)``."""
    choices, context = current_choices(), context_for(device)
    with context.lock, context.guard, context.guard.busy:
        resident = context.weight(weight)
        resident.readers.add("embedding")
        if choices.storage == "texture3d":
            _through_textures(context, weight, resident, choices, ids, output, result)
            return
        embed_dim = result.shape[-1]
        flat_ids, rows = ids.reshape(-1), result.reshape(-1, embed_dim)
        at_a_time = max(1, context.largest_binding // max(embed_dim * rows.itemsize, 4))
        for start in range(0, len(rows), at_a_time):
            some, out = flat_ids[start : start + at_a_time], rows[start : start + at_a_time]
            work = context.workspace
            last = work.scratch.result("embedding", out.nbytes)
            lookup = Lookup(weight, choices.layout, output, some.size)
            if len(resident.parts) == 1:
                ids_buffer = work.scratch.input("ids", some)
                steps = lookup_steps(work, resident.parts, lookup, ids_buffer, last)
                context.run(steps, last, out)
            else:
                groups, places, order = by_part(resident, some)
                ids_buffer = work.scratch.input("ids", places)
                steps = group_steps(work, groups, lookup, ids_buffer, last)
                context.run(steps, last, out if order is None else Reordered(out, order))


def _look_up_on_each(
    weight: Q4Weight,
    ids: NDArray[np.int32],
    output: FloatDtype,
    result: NDArray[Any],
    devices: Sequence[Any],
) -> None:
    """Fill ``result``, ``[ids, K]``, from the devices that hold the rows."""

    def look_up_own(share: Share) -> None:
        is_own = (ids >= share.rows.start) & (ids < share.rows.stop)
        if is_own.any():
            own = ids[is_own] - np.int32(share.rows.start)
            rows = np.empty((len(own), result.shape[1]), output)
            _look_up(share.weight, own, output, rows, share.device)
            result[is_own] = rows

    on_each(shares_of(weight, devices), look_up_own)


def _look_up_on_device(
    indices: DeviceArray, weight: Q4Weight, dtype: DTypeLike, device: Any, out: DeviceArray | None
) -> DeviceArray:
    _, embed_dim = check_weight(weight)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must have an integer dtype, not {indices.dtype}")
    output, choices = float_dtype("dtype", dtype), current_choices()
    if choices.storage != "buffer":
        raise ValueError("a device array lies in a buffer: storage='texture3d' cannot be forced")
    given, shape = {"indices": indices}, (*indices.shape, embed_dim)
    context = context_of(given, device)
    check_out(out, shape, (output,), given)
    with context.lock, context.guard, context.guard.busy:
        work = ArrayWorkspace(context, given)
        result = work.result(out, shape, output)
        if result.size:
            resident = context.weight(weight)
            resident.readers.add("embedding")
            lookup = Lookup(weight, choices.layout, output, indices.size)
            bound = whole(indices), whole(result)
            work.run(lookup_steps(work, resident.parts, lookup, *bound, unknown_ids=True))
    return result


def _through_textures(
    context: Context,
    weight: Q4Weight,
    resident: DeviceWeight,
    choices: Choices,
    ids: NDArray[np.int32],
    output: FloatDtype,
    result: NDArray[Any],
) -> None:
    """Ids ``[.., c, h, w]`` width-packed in a texture, the result in one of K/4 × w × (c · h)."""
    from wgpu_q4.device.textures import Texture3d, pack_width

    part, *others_of_weight = resident.parts
    if others_of_weight:
        raise DeviceLimitError(
            f"storage='texture3d' reads a weight in one part, and {context.adapter_summary} holds "
            f"this one in {len(resident.parts)}, as a binding has at most "
            f"{context.largest_binding:,} bytes there; use storage='buffer'"
        )
    embed_dim = resident.shape.embed_dim
    shape = (1,) * (3 - ids.ndim) + ids.shape
    width, height = shape[-1], shape[-2]
    others = math.prod(shape[:-2])
    texel = "rgba16float" if output == "float16" else "rgba32float"
    id_texture = Texture3d(context, (-(-width // 4), height, others), "rgba32sint", "ids")
    out_size = embed_dim // 4, width, height * others
    out_texture = Texture3d(context, out_size, texel, "embedding")
    id_texture.write(pack_width(ids.reshape(others, height, width)))
    resources = {
        **part.bindings(context, weight, choices.layout),
        "t_indices": id_texture.view,
        "t_out": out_texture.view,
        "out_sizes": context.scratch.sizes("embedding", embed_dim, width, height, others),
    }
    dispatch = context.plan(
        *(plan_embedding, resident.shape, ids.size, choices.layout, output, "texture3d"),
        half_support=context.half_support,
    )
    encoder = context.device.create_command_encoder()
    encode(encoder, [context.pipelines.step(dispatch, resources)])
    out_texture.read(encoder, result.reshape(height * others, width, embed_dim))
