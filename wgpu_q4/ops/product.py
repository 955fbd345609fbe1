"""The matrix product that `linear`, `argmax` and `top_k` share: checked, run, and reduced."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import is_torch, refuse_gradient
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.device.parts import DevicePart
from wgpu_q4.device.pipelines import BindGroups, Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import (
    LAST_GEMV_ROWS,
    Accuracy,
    LinearPlan,
    MatrixShape,
    Reduce,
    ReducePlan,
    plan_linear,
    plan_reduce,
)
from wgpu_q4.ops.arguments import check_floats, check_option, check_weight
from wgpu_q4.ops.forced import Choices, current_choices
from wgpu_q4.ops.reduction import later_steps, part_step
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
    context = context_for(product.device)
    with context.lock, context.guard, context.guard.busy:
        resident = context.weight(product.weight)
        resident.readers.add(reader)
        at_a_time = _rows_at_a_time(context, resident, reduce, kept)
        for start in range(0, len(result), at_a_time):
            x, out = product.rows[start : start + at_a_time], result[start : start + at_a_time]
            steps, last = _steps(context, resident, product, x, reduce, kept)
            context.run(steps, last, out)


def _rows_at_a_time(
    context: Context, resident: DeviceWeight, reduce: Reduce | None, kept: int
) -> int:
    """Return how many rows of x are multiplied at a time: as many as bindings hold.

    Raises:
        DeviceLimitError: not even one.
    """
    shape, largest, parts = resident.shape, context.largest_binding, resident.parts
    # The slices of a row keep at most V / 2 + `kept` entries of 8 bytes, the latter for each part.
    row_bytes = 4 * max(shape.vocab, shape.embed_dim) + 8 * kept * len(parts)
    at_a_time = largest // row_bytes
    if at_a_time < 1:
        at_a_time = 1
        # A part's logits are bound alone, and most reductions keep much less.
        needed = 4 * max(parts[0].shape.vocab, shape.embed_dim)
        if reduce is not None:
            plan = _plan_of_reduction(context, parts, 1, reduce, kept)
            needed = max(needed, *plan.stage_bytes)
        if needed > largest:
            raise DeviceLimitError(
                f"one row of x or of the result takes {needed:,} bytes in one binding; "
                f"{context.adapter_summary} allows {largest:,}"
            )
    # The tiled kernel pads the transposed x to whole tiles, at most 128 rows.
    at_a_time = at_a_time // 128 * 128 or at_a_time
    if largest < 128 * 4 * shape.embed_dim:
        at_a_time = min(at_a_time, LAST_GEMV_ROWS)
    return at_a_time


def _steps(
    context: Context,
    resident: DeviceWeight,
    product: Product,
    x: NDArray[np.float32],
    reduce: Reduce | None,
    kept: int,
) -> tuple[list[Step], Any]:
    """Return the steps for some rows of x, and the buffer in which their result will be.

    x is prepared once, and multiplied with each part of the weight.  Logits of a part are its
    columns of ``[M, V]``.  If they are reduced, that is done before those of the next part take
    their place.
    """
    scratch, parts, rows = context.scratch, resident.parts, len(x)
    several, whole_row = len(parts) > 1, None if reduce else product.vocab
    plan = _plan_of(context, parts[0], product, rows, whole_row)
    shared = {
        "t_x": scratch.input("x", x),
        "sizes": scratch.sizes("linear", rows, plan.padded_rows, resident.exponent),
    }
    if product.bias is not None:
        shared["t_bias"] = scratch.input("bias", product.bias, in_ranges=several)
    steps, shared = prepare_x(context, plan, shared, parts[0].bind_groups)
    if reduce is None:
        target = scratch.result("linear", 4 * rows * product.vocab, in_ranges=several)
    else:
        reduction = _plan_of_reduction(context, parts, rows, reduce, kept)
        target = scratch.buffer("logits", 4 * rows * parts[0].shape.vocab, "STORAGE")
    for number, part in enumerate(parts):
        if number:
            plan = _plan_of(context, part, product, rows, whole_row)
        bindings = part.bindings(context, product.weight, product.choices.layout)
        resources = {**shared, **bindings, "t_out": target}
        if several:
            if reduce is None:
                resources["t_out"] = part.columns_of(target, context)
            if product.bias is not None:
                resources["t_bias"] = part.columns_of(shared["t_bias"], context)
        steps.append(context.pipelines.step(plan.product, resources, part.bind_groups))
        if reduce is not None:
            place = number, rows, part.first_row
            steps.append(part_step(context, reduction, target, *place, part.bind_groups))
    if reduce is None:
        return steps, target
    more, best = later_steps(context, reduction, rows, parts[0].bind_groups)
    return steps + more, best


def _plan_of(
    context: Context, part: DevicePart, product: Product, rows: int, whole_row: int | None
) -> LinearPlan:
    biased, accuracy = product.bias is not None, product.accuracy
    return plan_for(context, part.shape, rows, biased, accuracy, product.choices, whole_row)


def _plan_of_reduction(
    context: Context, parts: tuple[DevicePart, ...], rows: int, reduce: Reduce, kept: int
) -> ReducePlan:
    vocabs = tuple([part.shape.vocab for part in parts])
    return context.plan(plan_reduce, vocabs, rows, reduce, kept)


def linear_steps(
    context: Context, plan: LinearPlan, resources: dict[str, Any], bind_groups: BindGroups | None
) -> list[Step]:
    """Return the steps of one product: the preparation of x, if there is one, and the product.

    Args:
        context: that of the device.
        plan: the planned dispatches.
        resources: a buffer or texture view for each binding of the product, by its name; ``t_x``
            holds x as it is.
        bind_groups: where the bind groups are kept for the next call.
    """
    steps, given = prepare_x(context, plan, resources, bind_groups)
    return [*steps, context.pipelines.step(plan.product, given, bind_groups)]


def prepare_x(
    context: Context, plan: LinearPlan, resources: dict[str, Any], bind_groups: BindGroups | None
) -> tuple[list[Step], dict[str, Any]]:
    """Return the steps that prepare x, and ``resources`` with x as they leave it.

    The arguments are those of `linear_steps`.
    """
    if plan.preparation is None:
        return [], resources
    before, after = dict(resources), dict(resources)
    before["t_out"] = after["t_x"] = context.scratch.buffer("prepared x", plan.x_bytes, "STORAGE")
    if plan.x_scale_bytes:
        scales = context.scratch.buffer("scales of x", plan.x_scale_bytes, "STORAGE")
        before["t_out_scales"] = after["t_x_scales"] = scales
    return [context.pipelines.step(plan.preparation, before, bind_groups)], after


def plan_for(
    context: Context,
    shape: MatrixShape,
    rows: int,
    bias: bool,
    accuracy: Accuracy,
    choices: Choices,
    result_row: int | None = None,
) -> LinearPlan:
    """Return the plan of a product of ``rows`` rows of x on a device.

    ``result_row`` is as in `wgpu_q4.kernels.plan_linear`.
    """
    return context.plan(
        plan_linear,
        shape,
        rows,
        choices.layout,
        bias,
        half_support=context.half_support,
        kernel=None if choices.kernel is None else choices.kernel.name,
        accuracy=accuracy,
        matrix_units=context.matrix_units,
        software=context.is_software,
        result_row=result_row,
    )
