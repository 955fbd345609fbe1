"""The matrix product that `linear`, `argmax` and `top_k` share: checked, run, and reduced."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import is_torch, refuse_gradient
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.device.pipelines import BindGroups, Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import (
    LAST_GEMV_ROWS,
    Accuracy,
    LinearPlan,
    Reduce,
    ReducePlan,
    plan_linear,
    plan_reduce,
)
from wgpu_q4.ops.arguments import check_floats, check_option, check_weight
from wgpu_q4.ops.forced import Choices, current_choices
from wgpu_q4.weight import Q4Weight

_ACCURACIES: tuple[Accuracy, ...] = get_args(Accuracy)


class Product(NamedTuple):
    """``x · Wᵀ + bias``, its arguments checked.

    Attributes:
        weight: ``[V, K]``.
        rows: x as float32 ``[M, K]``.
        leading: the shape of x without its last dimension.
        vocab: V.
        bias: float32 ``[V]`` or None.
        accuracy: as in `wgpu_q4.linear`.
        choices: those of `wgpu_q4.forced`.
        device: as in `wgpu_q4.linear`.
    """

    weight: Q4Weight
    rows: NDArray[np.float32]
    leading: tuple[int, ...]
    vocab: int
    bias: NDArray[np.float32] | None
    accuracy: Accuracy
    choices: Choices
    device: Any


def check_product(
    x: object, weight: Q4Weight, bias: object, device: Any, accuracy: Accuracy
) -> Product:
    """Check the arguments of a product, which are those of `wgpu_q4.linear`, and its errors."""
    vocab, embed_dim = check_weight(weight)
    check_option("accuracy", accuracy, _ACCURACIES)
    refuse_gradient(x, "x")
    if is_torch(x):
        refuse_gradient(bias, "bias")
    values = check_floats(x, "x")
    if values.ndim < 1 or values.shape[-1] != embed_dim:
        raise ValueError(
            f"x must have shape [..., {embed_dim}] for a weight of {vocab} × {embed_dim}, "
            f"not {list(values.shape)}"
        )
    choices = current_choices()
    rounds_x = accuracy != "exact" or (choices.kernel is not None and choices.kernel.rounds_x)
    if rounds_x and not np.isfinite(values).all():
        raise ValueError("x holds infinities or NaN, which cannot be rounded: use accuracy='exact'")
    added = None if bias is None else check_floats(bias, "bias")
    if added is not None and added.shape != (vocab,):
        raise ValueError(f"bias must have shape [{vocab}], not {list(added.shape)}")
    rows, leading = values.reshape(-1, embed_dim), values.shape[:-1]
    return Product(weight, rows, leading, vocab, added, accuracy, choices, device)


def logits_of(product: Product, reader: str) -> NDArray[np.float32]:
    """Run a product and return its logits ``[M, V]``.

    Args:
        product: the product to compute.
        reader: the op, for `DeviceWeight.readers`.
    """
    result: NDArray[np.float32] = np.empty((len(product.rows), product.vocab), np.float32)
    _run(product, reader, None, 0, result)
    return result


def best_of(product: Product, reader: str, reduce: Reduce, kept: int) -> NDArray[np.uint32]:
    """Run a product and return the best of its logits: ``[M, kept, 2]``, their bits and ids.

    The logits stay on the device.

    Args:
        product: the product to compute.
        reader: the op, for `DeviceWeight.readers`.
        reduce: the reduction.
        kept: how many logits it keeps of each row.
    """
    result: NDArray[np.uint32] = np.empty((len(product.rows), kept, 2), np.uint32)
    _run(product, reader, reduce, kept, result)
    return result


def _run(
    product: Product, reader: str, reduce: Reduce | None, kept: int, result: NDArray[Any]
) -> None:
    """Fill ``result`` with the logits, or with the best of them if there is a ``reduce``."""
    if not result.size:
        return
    weight, choices, bias = product.weight, product.choices, product.bias
    context = context_for(product.device)
    with context.lock, context.guard, context.guard.busy:
        resident, scratch = context.weight(weight), context.scratch
        resident.readers.add(reader)
        at_a_time = _rows_at_a_time(context, product, kept)
        for start in range(0, len(result), at_a_time):
            x, out = product.rows[start : start + at_a_time], result[start : start + at_a_time]
            plan = plan_for(context, resident, len(x), bias is not None, product.accuracy, choices)
            resources = dict(resident.bindings(context, weight, choices.layout))
            if reduce is None:
                resources["t_out"] = scratch.result("linear", out.nbytes)
            else:
                resources["t_out"] = scratch.buffer("logits", len(x) * 4 * product.vocab, "STORAGE")
            sizes = len(x), plan.padded_rows, resident.exponent
            resources["sizes"] = scratch.sizes("linear", *sizes)
            if bias is not None:
                resources["t_bias"] = scratch.input("bias", bias)
            resources["t_x"] = scratch.input("x", x)
            steps = linear_steps(context, plan, resources, resident.bind_groups)
            last = resources["t_out"]
            if reduce is not None:
                reduction = context.plan(plan_reduce, product.vocab, len(x), reduce, kept)
                best, last = reduce_steps(
                    context, reduction, last, resources["sizes"], resident.bind_groups
                )
                steps += best
            context.run(steps, last, out)


def _rows_at_a_time(context: Context, product: Product, kept: int) -> int:
    """Return how many rows of x are multiplied at a time: as many as a binding holds.

    Raises:
        DeviceLimitError: not even one.
    """
    embed_dim, largest = int(product.rows.shape[1]), context.largest_binding
    # The slices of a row keep at most V/2 + `kept` entries of 8 bytes.
    row_bytes = 4 * max(product.vocab, embed_dim) + 8 * kept
    at_a_time = largest // row_bytes
    # The tiled kernel pads the transposed x to whole tiles, at most 128 rows.
    at_a_time = at_a_time // 128 * 128 or at_a_time
    if largest < 128 * 4 * embed_dim:
        at_a_time = min(at_a_time, LAST_GEMV_ROWS)
    if at_a_time < 1:
        raise DeviceLimitError(
            f"one row of x or of the result takes {row_bytes:,} bytes in one binding; "
            f"{context.adapter_summary} allows {largest:,}"
        )
    return at_a_time


def linear_steps(
    context: Context, plan: LinearPlan, resources: dict[str, Any], bind_groups: BindGroups | None
) -> list[Step]:
    """Return the steps of a product: the preparation of x, if there is one, and the product.

    Args:
        context: that of the device.
        plan: the planned dispatches.
        resources: a buffer or texture view for each binding of the product, by its name; ``t_x``
            holds x as it is.
        bind_groups: where the bind groups are kept for the next call.
    """
    if plan.preparation is None:
        return [context.pipelines.step(plan.product, resources, bind_groups)]
    before, product = dict(resources), dict(resources)
    before["t_out"] = product["t_x"] = context.scratch.buffer("prepared x", plan.x_bytes, "STORAGE")
    if plan.x_scale_bytes:
        scales = context.scratch.buffer("scales of x", plan.x_scale_bytes, "STORAGE")
        before["t_out_scales"] = product["t_x_scales"] = scales
    return [
        context.pipelines.step(plan.preparation, before, bind_groups),
        context.pipelines.step(plan.product, product, bind_groups),
    ]


def reduce_steps(
    context: Context, plan: ReducePlan, logits: Any, sizes: Any, bind_groups: BindGroups | None
) -> tuple[list[Step], Any]:
    """Return the steps of a reduction, and the buffer in which its entries will be.

    Args:
        context: that of the device.
        plan: the planned dispatches.
        logits: a buffer of float32 ``[M, V]``.
        sizes: a uniform buffer whose first int32 is M.
        bind_groups: where the bind groups are kept for the next call.
    """
    steps, source = [], logits
    for number, (stage, nbytes) in enumerate(zip(plan.stages, plan.stage_bytes, strict=True)):
        if number == len(plan.stages) - 1:
            target = context.scratch.result("kept of logits", nbytes)
        else:  # each dispatch reads what the one before it wrote
            target = context.scratch.buffer(f"candidates {number % 2}", nbytes, "STORAGE")
        resources = {"t_out": target, "t_in": source, "sizes": sizes}
        steps.append(context.pipelines.step(stage, resources, bind_groups))
        source = target
    return steps, source


def plan_for(
    context: Context,
    resident: DeviceWeight,
    rows: int,
    bias: bool,
    accuracy: Accuracy,
    choices: Choices,
) -> LinearPlan:
    """Return the plan of a product of ``rows`` rows of x on a device."""
    return context.plan(
        plan_linear,
        resident.shape,
        rows,
        choices.layout,
        bias,
        half_support=context.half_support,
        kernel=None if choices.kernel is None else choices.kernel.name,
        accuracy=accuracy,
        matrix_units=context.matrix_units,
        software=context.is_software,
    )
