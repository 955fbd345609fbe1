"""Activations times a 4-bit matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import arrays
from wgpu_q4.device.context import BindGroups, Context, context_for
from wgpu_q4.device.roundtrip import ComputePass
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import (
    LAST_GEMV_ROWS,
    Accuracy,
    Layout,
    LinearPlan,
    Reduce,
    ReducePlan,
    linear_kernel,
    plan_linear,
    plan_reduce,
)
from wgpu_q4.ops.arguments import check_option, check_weight
from wgpu_q4.ops.reduce import check_reduce, dispatch_reduce, result_of
from wgpu_q4.weight import Q4Weight


def linear(
    x: arrays.ArrayLike,
    weight: Q4Weight,
    bias: arrays.ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    layout: Layout | None = None,
    kernel: str | None = None,
    reduce: Reduce | None = None,
    k: int | None = None,
) -> Any:
    """``x · Wᵀ + bias`` with the weight dequantized on the fly.

    Args:
        x: ``[..., K]``, float32 or float16 (torch: bfloat16 too).
        weight: ``[V, K]``; the copy on the device is shared with `wgpu_q4.embedding`.
        bias: ``[V]`` of a dtype that ``x`` may have, or None.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.
        accuracy: ``"exact"`` accumulates in float32 and meets its summation bound; ``"fast"``
            allows x to be rounded to 16 bits, or x and the weight to half precision, ``"int8"`` x
            to 8 bits, which some devices are faster with (`wgpu_q4.reference` gives each bound).
        layout: how the device holds the weight; None for the layout already there, else the one
            that suits both ops (see `wgpu_q4.kernels`).
        kernel: a kernel by name, whatever its accuracy; None lets `wgpu_q4.kernels` choose.
        reduce: ``"argmax"`` for the id of the largest logit of each row of x, ``"top_k"`` for the
            ``k`` largest: the logits then stay on the device.  NaN counts as larger than all
            else, as for ``numpy.argmax``; among equals (−0 and 0 are) the lowest id comes first.
            float32 logits are compared, whatever the dtype of ``x``.
        k: for ``"top_k"``: how many, 1 to the smaller of V and 1024.

    Returns:
        With ``"argmax"``, int64 ids ``x.shape[:-1]``; with ``"top_k"``, `TopK`: ``values``
        ``x.shape[:-1] + (k,)`` in the dtype of ``x``, largest first, and their int64 ``ids``.
        Else the logits,
        ``x.shape[:-1] + (V,)`` in the dtype of ``x``, numpy or torch as ``x`` is.  float32 is
        within float32's summation error of the exact result, for nonzero ``|x|`` from 1e-30 to
        1e30 (products are scaled after they are summed, so they must stay in float32's range);
        the others are rounded from it.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes that do not fit, or an option that does not exist.
        RuntimeError: torch expects a gradient of ``x`` or ``bias``.
        DeviceError: no adapter, or a limit of the device is exceeded.
    """
    check_weight(weight)
    check_option("accuracy", accuracy, get_args(Accuracy))
    if layout is not None:
        check_option("layout", layout, get_args(Layout))
    forced = None if kernel is None else linear_kernel(kernel)
    reduction = check_reduce(reduce, k, weight.shape[0])
    arrays.refuse_gradient(x, "x")
    if arrays.is_torch(x):
        arrays.refuse_gradient(bias, "bias")
    vocab, embed_dim = weight.shape
    activations = _floats(x, "x")
    if activations.ndim < 1 or activations.shape[-1] != embed_dim:
        raise ValueError(
            f"x must have shape [..., {embed_dim}] for a weight of {vocab} × {embed_dim}, "
            f"not {list(activations.shape)}"
        )
    rounds_x = accuracy != "exact" or (forced is not None and forced.rounds_x)
    if rounds_x and not np.isfinite(activations).all():
        raise ValueError("x holds infinities or NaN, which cannot be rounded: use accuracy='exact'")
    added = None if bias is None else _floats(bias, "bias")
    if added is not None and added.shape != (vocab,):
        raise ValueError(f"bias must have shape [{vocab}], not {list(added.shape)}")
    rows = activations.reshape(-1, embed_dim)
    leading = activations.shape[:-1]
    result: NDArray[Any]
    if reduction is None:
        result = np.empty((rows.shape[0], vocab), np.float32)
    else:
        result = np.empty((rows.shape[0], reduction[1], 2), np.uint32)
    if result.size:
        context = context_for(device)
        with context.working():
            _run(context, weight, layout, kernel, accuracy, rows, added, reduction, result)
    if reduction is None:
        return arrays.like_floats(result.reshape(*leading, vocab), x)
    return result_of(result, reduction[0], leading, x)


def _run(
    context: Context,
    weight: Q4Weight,
    layout: Layout | None,
    kernel: str | None,
    accuracy: Accuracy,
    rows: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    reduction: tuple[Reduce, int] | None,
    result: NDArray[Any],
) -> None:
    """Fill ``result``: logits ``[rows, V]``, or what ``reduction`` keeps of them."""
    resident = context.weight(weight)
    layout, packed = resident.packed(context, weight, layout)
    resident.readers.add("linear")
    vocab, embed_dim = weight.shape
    row_bytes = 4 * max(vocab, embed_dim)
    if reduction is not None:  # what is kept of a row's slices is at most that
        row_bytes += 8 * reduction[1]
    at_a_time = context.largest_binding // row_bytes
    # The tiled kernel pads the transposed x to whole tiles, at most 128 rows.
    at_a_time = at_a_time // 128 * 128 or at_a_time
    if context.largest_binding < 128 * 4 * embed_dim:
        at_a_time = min(at_a_time, LAST_GEMV_ROWS)
    if at_a_time < 1:
        raise DeviceLimitError(
            f"one row of x or of the result takes {row_bytes:,} bytes in one binding; "
            f"{context.adapter_summary} allows {context.largest_binding:,}"
        )
    resources = {"t_weight": packed, "t_scales": resident.scales}
    if bias is not None:
        resources["t_bias"] = context.scratch("bias", bias.nbytes, "STORAGE", "COPY_DST")
        context.write(resources["t_bias"], bias)
    for start in range(0, len(rows), at_a_time):
        part = rows[start : start + at_a_time]
        out = result[start : start + at_a_time]
        plan = context.plan(
            plan_linear,
            resident.shape,
            len(part),
            layout,
            bias is not None,
            half_support=context.half_support,
            kernel=kernel,
            accuracy=accuracy,
            matrix_units=context.matrix_units,
            software=context.is_software,
        )
        if reduction is None:
            resources["t_out"] = context.result("linear", out.nbytes)
        else:
            resources["t_out"] = context.scratch("logits", len(part) * vocab * 4, "STORAGE")
        resources["t_x"] = context.scratch("x", part.nbytes, "STORAGE", "COPY_DST")
        sizes = len(part), plan.padded_rows, resident.exponent
        resources["sizes"] = context.sizes(*sizes, role="linear")
        context.write(resources["t_x"], part)
        kept = (
            None if reduction is None else context.plan(plan_reduce, vocab, len(part), *reduction)
        )
        groups = resident.bind_groups
        context.run(partial(_record, context, plan, kept, resources, groups), out)


def _record(
    context: Context,
    plan: LinearPlan,
    kept: ReducePlan | None,
    resources: Mapping[str, Any],
    groups: BindGroups,
    compute_pass: ComputePass,
) -> Any:
    """Append the product and what reduces it; returns the buffer of the result."""
    dispatch_linear(context, compute_pass, plan, resources, groups)
    if kept is None:
        return resources["t_out"]
    return dispatch_reduce(context, compute_pass, kept, resources, groups)


def dispatch_linear(
    context: Context,
    compute_pass: ComputePass,
    plan: LinearPlan,
    resources: Mapping[str, Any],
    groups: BindGroups,
) -> None:
    """Append ``plan`` to a compute pass: the product, and what must come before it.

    Args:
        resources: a buffer or texture view for each binding of the product, by its name; ``t_x``
            holds x as it is.
        groups: where the bind groups are kept for the next call.
    """
    if plan.preparation is None:
        context.dispatch(compute_pass, plan.product, resources, groups)
        return
    before, product = dict(resources), dict(resources)
    before["t_out"] = product["t_x"] = context.scratch("prepared x", plan.x_bytes, "STORAGE")
    if plan.x_scale_bytes:
        scales = context.scratch("scales of x", plan.x_scale_bytes, "STORAGE")
        before["t_out_scales"] = product["t_x_scales"] = scales
    context.dispatch(compute_pass, plan.preparation, before, groups)
    context.dispatch(compute_pass, plan.product, product, groups)


def _floats(array: object, name: str) -> NDArray[np.float32]:
    values = arrays.to_numpy(array, name)
    if values.dtype not in (np.float16, np.float32):
        cast = ".float()" if arrays.is_torch(array) else ".astype(np.float32)"
        hint = f": convert with {cast}" if values.dtype.kind in "fiu" else ""
        raise TypeError(f"{name} must be float32 or float16, not {values.dtype}{hint}")
    return values.astype(np.float32, order="C", copy=False)
