"""Activations times a 4-bit matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import arrays
from wgpu_q4.device.context import BindGroups, Context, context_for
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import Accuracy, Layout, LinearKernel
from wgpu_q4.ops.arguments import check_option, check_weight
from wgpu_q4.plan import LAST_GEMV_ROWS, LinearPlan, plan_linear
from wgpu_q4.weight import Q4Weight


def linear(
    x: arrays.ArrayLike,
    weight: Q4Weight,
    bias: arrays.ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    layout: Layout | None = None,
    kernel: LinearKernel | None = None,
) -> Any:
    """``x · Wᵀ + bias`` with the weight dequantized on the fly.

    Args:
        x: ``[..., K]``, float32 or float16 (torch: bfloat16 too).
        weight: ``[V, K]``; the copy on the device is shared with `wgpu_q4.embedding`.
        bias: ``[V]`` of a dtype that ``x`` may have, or None.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.
        accuracy: ``"exact"`` accumulates in float32 and meets its summation bound; ``"fast"``
            allows x to be rounded to 16 bits, ``"int8"`` to 8, which some devices are faster with
            (`wgpu_q4.reference.linear_bound` gives each bound).
        layout: how the device holds the weight; None for the layout already there, else the one
            that suits both ops (see `wgpu_q4.plan`).
        kernel: a kernel by name, whatever its accuracy; None lets `wgpu_q4.plan` choose.

    Returns:
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
    if kernel is not None:
        check_option("kernel", kernel, get_args(LinearKernel))
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
    added = None if bias is None else _floats(bias, "bias")
    if added is not None and added.shape != (vocab,):
        raise ValueError(f"bias must have shape [{vocab}], not {list(added.shape)}")
    rows = activations.reshape(-1, embed_dim)
    result = np.empty((rows.shape[0], vocab), np.float32)
    if result.size:
        context = context_for(device)
        with context.lock:
            _run(context, weight, layout, kernel, accuracy, rows, added, result)
    return _like_x(result.reshape(*activations.shape[:-1], vocab), x)


def _run(
    context: Context,
    weight: Q4Weight,
    layout: Layout | None,
    kernel: LinearKernel | None,
    accuracy: Accuracy,
    rows: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    result: NDArray[np.float32],
) -> None:
    resident = context.weight(weight)
    layout, packed = resident.packed(context, weight, layout)
    resident.readers.add("linear")
    vocab, embed_dim = weight.shape
    row_bytes = 4 * max(vocab, embed_dim)
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
    resources = {2: packed, 3: resident.scales}
    if bias is not None:
        resources[5] = context.scratch("bias", bias.nbytes, "STORAGE", "COPY_DST")
        context.write(resources[5], bias)
    for start in range(0, len(rows), at_a_time):
        part = rows[start : start + at_a_time]
        out = result[start : start + at_a_time]
        plan = plan_linear(
            resident.shape,
            len(part),
            layout,
            bias is not None,
            context.limits,
            context.half_support,
            kernel,
            accuracy,
        )
        resources[0] = context.scratch("linear", out.nbytes, "STORAGE", "COPY_SRC")
        resources[1] = context.scratch("x", part.nbytes, "STORAGE", "COPY_DST")
        resources[4] = context.sizes(len(part), plan.padded_rows)
        context.write(resources[1], part)
        encoder = context.device.create_command_encoder()
        compute_pass = encoder.begin_compute_pass()
        dispatch_linear(context, compute_pass, plan, resources, resident.bind_groups)
        compute_pass.end()
        context.read(encoder, resources[0], out)


def dispatch_linear(
    context: Context,
    compute_pass: Any,
    plan: LinearPlan,
    resources: Mapping[int, Any],
    groups: BindGroups,
) -> None:
    """Append ``plan`` to a compute pass: the product, and what must come before it.

    Args:
        resources: a buffer or texture view for each binding of the product, with x as it is at 1.
        groups: where the bind groups are kept for the next call.
    """
    if plan.preparation is None:
        context.dispatch(compute_pass, plan.product, resources, groups)
        return
    prepared = {0: context.scratch("prepared x", plan.x_bytes, "STORAGE")}
    if plan.x_scale_bytes:
        prepared[6] = context.scratch("scales of x", plan.x_scale_bytes, "STORAGE")
    given = {1: resources[1], 4: resources[4]}
    context.dispatch(compute_pass, plan.preparation, prepared | given, groups)
    product = {**resources, **prepared, 0: resources[0], 1: prepared[0]}
    context.dispatch(compute_pass, plan.product, product, groups)


def _floats(array: object, name: str) -> NDArray[np.float32]:
    values = arrays.to_numpy(array, name)
    if values.dtype not in (np.float16, np.float32):
        cast = ".float()" if arrays.is_torch(array) else ".astype(np.float32)"
        hint = f": convert with {cast}" if values.dtype.kind in "fiu" else ""
        raise TypeError(f"{name} must be float32 or float16, not {values.dtype}{hint}")
    return values.astype(np.float32, order="C", copy=False)


def _like_x(result: NDArray[np.float32], x: Any) -> Any:
    if arrays.is_torch(x):
        return arrays.like(result, x).to(x.dtype)
    with np.errstate(over="ignore"):  # a logit beyond float16 is infinite there, as in any cast
        return result.astype(x.dtype, copy=False)
