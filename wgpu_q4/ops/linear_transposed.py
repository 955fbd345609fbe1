"""The transposed product, which is the gradient of `wgpu_q4.linear` with respect to x."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, HostArray, like_floats, refuse_gradient
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels.transposed import plan_transposed
from wgpu_q4.ops.arguments import check_floats, check_weight
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    import torch


@overload
def linear_transposed(y: HostArray, weight: Q4Weight, device: Any = None) -> NDArray[Any]: ...
@overload
def linear_transposed(y: torch.Tensor, weight: Q4Weight, device: Any = None) -> torch.Tensor: ...
def linear_transposed(
    y: ArrayLike, weight: Q4Weight, device: Any = None
) -> NDArray[Any] | torch.Tensor:
    """Return ``y · W``, the weight dequantized on the fly from the bytes that `linear` reads.

    If ``y`` is the gradient of a loss with respect to ``linear(x, weight)``, the result is the
    gradient with respect to ``x``.

    Args:
        y: ``[..., V]``, float32 or float16 (torch: bfloat16 too); numpy, torch or a list of floats.
        weight: ``[V, K]``; the copy on the device, in rows, is shared with the other ops.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.

    Returns:
        ``y.shape[:-1] + (K,)`` in the dtype of ``y``, torch if ``y`` is, else numpy.  It is summed
        in float32, and within `wgpu_q4.reference.linear_transposed_bound` of the exact result;
        other dtypes are rounded from that.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes that do not fit.
        RuntimeError: torch expects a gradient of ``y``.
        DeviceError: no adapter, or a limit of the device is exceeded.
    """
    vocab, embed_dim = check_weight(weight)
    refuse_gradient(y, "y")
    values = check_floats(y, "y")
    if values.ndim < 1 or values.shape[-1] != vocab:
        raise ValueError(
            f"y must have shape [..., {vocab}] for a weight of {vocab} × {embed_dim}, "
            f"not {list(values.shape)}"
        )
    rows = values.reshape(-1, vocab)
    result = np.empty((len(rows), embed_dim), np.float32)
    if result.size:
        context = context_for(device)
        with context.lock, context.guard, context.guard.busy:
            _multiply(context, weight, rows, result)
    return like_floats(result.reshape(*values.shape[:-1], embed_dim), y)  # type: ignore[no-any-return]


def _multiply(
    context: Context, weight: Q4Weight, rows: NDArray[np.float32], result: NDArray[np.float32]
) -> None:
    """Fill ``result`` ``[M, K]``, with as many rows at a time as a binding holds."""
    resident, largest = context.weight(weight), context.largest_binding
    parts = resident.parts
    # Each part has a row of the result for itself, before these are added up.
    row_bytes = 4 * max(parts[0].shape.vocab, weight.shape[1] * len(parts))
    if row_bytes > largest:
        raise DeviceLimitError(
            f"one row of y or of the result takes {row_bytes:,} bytes in one binding; "
            f"{context.adapter_summary} allows {largest:,}"
        )
    at_a_time = max(1, min(largest // row_bytes, largest // (4 * weight.shape[0])))
    resident.readers.add("linear_transposed")
    for start in range(0, len(rows), at_a_time):
        some = slice(start, start + at_a_time)
        _multiply_rows(context, weight, resident, rows[some], result[some])


def _multiply_rows(
    context: Context,
    weight: Q4Weight,
    resident: DeviceWeight,
    y: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    scratch, parts = context.scratch, resident.parts
    shapes = tuple([part.shape for part in parts])
    plan = context.plan(plan_transposed, shapes, len(y), half_support=context.half_support)
    last = sums = scratch.result("transposed", out.nbytes)
    if plan.add is not None:
        sums = scratch.buffer("sections of transposed", plan.section_bytes, "STORAGE")
    y_buffer = scratch.input("y", y, in_ranges=len(parts) > 1)
    steps, sections = [], sum(plan.sections)
    for number, (part, product) in enumerate(zip(parts, plan.products, strict=True)):
        place = plan.sections[number], sum(plan.sections[:number]), sections
        resources = {
            **part.bindings(context, weight, "rows"),
            "t_in": part.columns_of(y_buffer, context),
            "sizes": scratch.sizes(f"transposed {number}", len(y), *place),
            "t_out": sums,
        }
        steps.append(context.pipelines.step(product, resources, part.bind_groups))
    if plan.add is not None:
        added = {"t_in": sums, "t_out": last, "sizes": resources["sizes"]}
        steps.append(context.pipelines.step(plan.add, added, parts[0].bind_groups))
    context.run(steps, last, out)
