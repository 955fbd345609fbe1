"""The transposed product, which is the gradient of `wgpu_q4.linear` with respect to x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, HostArray, like_floats, refuse_gradient
from wgpu_q4.device.array import DeviceArray
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels.transposed import plan_transposed
from wgpu_q4.ops.arguments import check_floats, check_weight
from wgpu_q4.ops.on_device import ArrayWorkspace, check_out, context_of, in_turns, refuse_out
from wgpu_q4.ops.several import Share, is_several, on_each, shares_of
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    import torch


@overload
def linear_transposed(y: HostArray, weight: Q4Weight, device: Any = None) -> NDArray[Any]: ...
@overload
def linear_transposed(y: torch.Tensor, weight: Q4Weight, device: Any = None) -> torch.Tensor: ...
@overload
def linear_transposed(
    y: DeviceArray, weight: Q4Weight, device: Any = None, *, out: DeviceArray | None = None
) -> DeviceArray: ...
def linear_transposed(
    y: ArrayLike | DeviceArray,
    weight: Q4Weight,
    device: Any = None,
    *,
    out: DeviceArray | None = None,
) -> NDArray[Any] | torch.Tensor | DeviceArray:
    """Return ``y · W``, the weight dequantized on the fly from the bytes that `linear` reads.

    If ``y`` is the gradient of a loss with respect to ``linear(x, weight)``, the result is the
    gradient with respect to ``x``.

    Args:
        y: ``[..., V]``, float32 or float16 (torch: bfloat16 too); numpy, torch, a list of floats,
            or a device array.
        weight: ``[V, K]``; the copy on the device, in rows, is shared with the other ops.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.
        out: for device arrays: the `DeviceArray` to write to, of the result's shape and dtype.

    Returns:
        ``y.shape[:-1] + (K,)`` in the dtype of ``y``, torch or a device array if ``y`` is, else
        numpy.  It is summed in float32, and within `wgpu_q4.reference.linear_transposed_bound` of
        the exact result; other dtypes are rounded from that.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes or an ``out`` that do not fit.
        RuntimeError: torch expects a gradient of ``y``.
        DeviceError: no adapter, or a limit of the device is exceeded; device arrays that are on
            several devices, freed, or not computed yet.
    """
    vocab, embed_dim = check_weight(weight)
    if isinstance(y, DeviceArray):
        return _transposed_on_device(y, weight, device, out)
    refuse_out(out, "y")
    refuse_gradient(y, "y")
    values = check_floats(y, "y")
    _check_shape(values.shape, weight)
    rows = values.reshape(-1, vocab)
    result = np.empty((len(rows), embed_dim), np.float32)
    if result.size and is_several(device):
        _multiply_on_each(weight, rows, result, device)
    elif result.size:
        context = context_for(device)
        with context.lock, context.guard, context.guard.busy:
            _multiply(context, weight, rows, result)
    return like_floats(result.reshape(*values.shape[:-1], embed_dim), y)  # type: ignore[no-any-return]


def _check_shape(shape: tuple[int, ...], weight: Q4Weight) -> None:
    vocab, embed_dim = weight.shape
    if not shape or shape[-1] != vocab:
        raise ValueError(
            f"y must have shape [..., {vocab}] for a weight of {vocab} × {embed_dim}, "
            f"not {list(shape)}"
        )


def _transposed_on_device(
    y: DeviceArray, weight: Q4Weight, device: Any, out: DeviceArray | None
) -> DeviceArray:
    if y.dtype.kind != "f":
        raise TypeError(f"y must be float32 or float16, not {y.dtype}")
    _check_shape(y.shape, weight)
    vocab, embed_dim = weight.shape
    given, shape = {"y": y}, (*y.shape[:-1], embed_dim)
    context = context_of(given, device)
    check_out(out, shape, (y.dtype.name,), given)
    with context.lock, context.guard, context.guard.busy:
        work = ArrayWorkspace(context, given)
        result = work.result(out, shape, y.dtype.name)
        if not result.size:
            return result
        resident = context.weight(weight)
        resident.readers.add("linear_transposed")
        part, rows, sums = resident.parts[0], y.reshape(-1, vocab), result.reshape(-1, embed_dim)
        for some in in_turns(rows_of_y_at_a_time(context, resident), rows, sums):
            before, values = work.floats("y", rows, some, part)
            target, after = work.from_floats("sums", sums, some, part)
            steps = transposed_steps(work, weight, resident, values, len(some), target)
            work.run([*before, *steps, *after])
    return result


def _multiply(
    context: Context, weight: Q4Weight, rows: NDArray[np.float32], result: NDArray[np.float32]
) -> None:
    """Fill ``result`` ``[M, K]``, with as many rows at a time as a binding holds."""
    resident, work = context.weight(weight), context.workspace
    resident.readers.add("linear_transposed")
    at_a_time = rows_of_y_at_a_time(context, resident)
    for start in range(0, len(rows), at_a_time):
        y, out = rows[start : start + at_a_time], result[start : start + at_a_time]
        y_buffer = work.scratch.input("y", y, in_ranges=len(resident.parts) > 1)
        last = work.scratch.result("transposed", out.nbytes)
        context.run(transposed_steps(work, weight, resident, y_buffer, len(y), last), last, out)


def _multiply_on_each(
    weight: Q4Weight,
    rows: NDArray[np.float32],
    result: NDArray[np.float32],
    devices: Sequence[Any],
) -> None:
    """Fill ``result`` ``[M, K]`` with the sum of what several devices compute."""

    def multiply_own(share: Share) -> NDArray[np.float32]:
        own = np.ascontiguousarray(rows[:, share.columns])
        return linear_transposed(own, share.weight, share.device)

    np.sum(on_each(shares_of(weight, devices), multiply_own), 0, out=result)


def rows_of_y_at_a_time(context: Context, resident: DeviceWeight) -> int:
    """Return how many rows of y are multiplied at a time: as many as bindings hold.

    Raises:
        DeviceLimitError: not even one.
    """
    shape, parts, largest = resident.shape, resident.parts, context.largest_binding
    # Each part has a row of the result for itself, before these are added up.
    row_bytes = 4 * max(parts[0].shape.vocab, shape.embed_dim * len(parts))
    if row_bytes > largest:
        raise DeviceLimitError(
            f"one row of y or of the result takes {row_bytes:,} bytes in one binding; "
            f"{context.adapter_summary} allows {largest:,}"
        )
    return max(1, min(largest // row_bytes, largest // (4 * shape.vocab)))


def transposed_steps(
    work: Workspace, weight: Q4Weight, resident: DeviceWeight, y: Any, rows: int, out: Any
) -> list[Step]:
    """Return the steps of the product.

    Args:
        work: the workspace.
        weight: the weight.
        resident: its copy on the device.
        y: what to bind of float32 ``[M, V]``.
        rows: M.
        out: what to bind of float32 ``[M, K]``, the result.
    """
    context, scratch, parts = work.context, work.scratch, resident.parts
    shapes = tuple([part.shape for part in parts])
    plan = context.plan(plan_transposed, shapes, rows, half_support=context.half_support)
    sums = out
    if plan.add is not None:
        sums = scratch.buffer("sections of transposed", plan.section_bytes, "STORAGE")
    steps, sections = [], sum(plan.sections)
    for number, (part, product) in enumerate(zip(parts, plan.products, strict=True)):
        place = plan.sections[number], sum(plan.sections[:number]), sections
        resources = {
            **part.bindings(context, weight, "rows"),
            "t_in": part.columns_of(y, context),
            "sizes": scratch.sizes(f"transposed {number}", rows, *place),
            "t_out": sums,
        }
        steps.append(work.step(product, resources, part))
    if plan.add is not None:
        added = {"t_in": sums, "t_out": out, "sizes": resources["sizes"]}
        steps.append(work.step(plan.add, added, parts[0]))
    return steps
