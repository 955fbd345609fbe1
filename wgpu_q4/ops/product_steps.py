"""The steps of ``x · Wᵀ + bias``: x prepared, multiplied with each part, perhaps reduced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wgpu_q4.device.context import Context
from wgpu_q4.device.parts import DevicePart
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import (
    LAST_GEMV_ROWS,
    Accuracy,
    LinearPlan,
    MatrixShape,
    Reduce,
    ReducePlan,
    Results,
    plan_linear,
    plan_reduce,
)
from wgpu_q4.ops.forced import Choices
from wgpu_q4.ops.reduction import Kept, later_steps, part_step
from wgpu_q4.weight import Q4Weight


class How(NamedTuple):
    """The weight of a product, and what a call says of how it is computed.

    Attributes:
        weight: ``[V, K]``.
        accuracy: as in `wgpu_q4.linear`.
        choices: those of `wgpu_q4.forced`.
    """

    weight: Q4Weight
    accuracy: Accuracy
    choices: Choices


def rows_at_a_time(
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
            plan = plan_of_reduction(context, resident, 1, reduce, kept)
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


class Operands(NamedTuple):
    """What a product multiplies and adds, on the device.

    Attributes:
        x: what to bind of float32 ``[M, K]``.
        rows: M.
        bias: what to bind of float32 ``[V]``; None for no bias.
    """

    x: Any
    rows: int
    bias: Any


def logits_steps(
    work: Workspace, resident: DeviceWeight, how: How, operands: Operands, logits: Any
) -> list[Step]:
    """Return the steps that write logits.

    Args:
        work: the workspace.
        resident: the weight on the device.
        how: the weight, and the choices of the call.
        operands: x and bias.
        logits: what to bind of float32 ``[M, V]``; each part of the weight writes its columns.
    """
    vocab = resident.shape.vocab
    plan, steps, shared = _prepared(work, resident, how, operands, vocab)
    for number, part in enumerate(resident.parts):
        if number:
            plan = _plan_of(work.context, part, how, operands, vocab)
        target = part.columns_of(logits, work.context)
        steps.append(_part_product(work, part, how, operands, plan, shared, target))
    return steps


def best_steps(
    work: Workspace,
    resident: DeviceWeight,
    how: How,
    operands: Operands,
    reduction: ReducePlan,
    kept: Kept,
) -> list[Step]:
    """Return the steps that keep the best logits.

    Those of a part of the weight are reduced before those of the next part take their place.

    Args:
        work: the workspace.
        resident: the weight on the device.
        how: the weight, and the choices of the call.
        operands: x and bias.
        reduction: the planned reduction.
        kept: what its last step writes to, by the names of the bindings.
    """
    parts, rows = resident.parts, operands.rows
    plan, steps, shared = _prepared(work, resident, how, operands, None)
    logits = work.scratch.buffer("logits", 4 * rows * parts[0].shape.vocab, "STORAGE")
    for number, part in enumerate(parts):
        if number:
            plan = _plan_of(work.context, part, how, operands, None)
        steps.append(_part_product(work, part, how, operands, plan, shared, logits))
        place = logits, number, rows, part.first_row
        steps.append(part_step(work, reduction, *place, kept, part))
    return steps + later_steps(work, reduction, rows, kept, parts[0])


def _prepared(
    work: Workspace,
    resident: DeviceWeight,
    how: How,
    operands: Operands,
    whole_row: int | None,
) -> tuple[LinearPlan, list[Step], dict[str, Any]]:
    """Return the plan of the first part, the steps that prepare x once for all parts, and what each
    product binds of it."""
    part, rows = resident.parts[0], operands.rows
    plan = _plan_of(work.context, part, how, operands, whole_row)
    given = {
        "t_x": operands.x,
        "sizes": work.scratch.sizes("linear", rows, plan.padded_rows, resident.exponent),
    }
    return plan, *prepare_x(work, plan, given, part)


def _part_product(
    work: Workspace,
    part: DevicePart,
    how: How,
    operands: Operands,
    plan: LinearPlan,
    shared: Mapping[str, Any],
    target: Any,
) -> Step:
    bindings = part.bindings(work.context, how.weight, how.choices.layout)
    resources = {**shared, **bindings, "t_out": target}
    if operands.bias is not None:
        resources["t_bias"] = part.columns_of(operands.bias, work.context)
    return work.step(plan.product, resources, part)


def _plan_of(
    context: Context, part: DevicePart, how: How, operands: Operands, whole_row: int | None
) -> LinearPlan:
    biased = operands.bias is not None
    return plan_for(
        context, part.shape, operands.rows, biased, how.accuracy, how.choices, whole_row
    )


def plan_of_reduction(
    context: Context,
    resident: DeviceWeight,
    rows: int,
    reduce: Reduce,
    kept: int,
    results: Results = "entries",
) -> ReducePlan:
    """Return the plan that keeps the best logits of ``rows`` rows; see `plan_reduce`."""
    vocabs = tuple([part.shape.vocab for part in resident.parts])
    return context.plan(plan_reduce, vocabs, rows, reduce, kept, results=results)


def linear_steps(
    work: Workspace, plan: LinearPlan, resources: dict[str, Any], part: DevicePart | None
) -> list[Step]:
    """Return the steps of one product: the preparation of x, if there is one, and the product.

    Args:
        work: the workspace.
        plan: the planned dispatches.
        resources: a buffer or texture view for each binding of the product, by its name; ``t_x``
            holds x as it is.
        part: the part of a weight with which the bind groups are kept; None for none.
    """
    steps, given = prepare_x(work, plan, resources, part)
    return [*steps, work.step(plan.product, given, part)]


def prepare_x(
    work: Workspace, plan: LinearPlan, resources: dict[str, Any], part: DevicePart | None
) -> tuple[list[Step], dict[str, Any]]:
    """Return the steps that prepare x, and ``resources`` with x as they leave it.

    The arguments are those of `linear_steps`.
    """
    if plan.preparation is None:
        return [], resources
    before, after = dict(resources), dict(resources)
    before["t_out"] = after["t_x"] = work.scratch.buffer("prepared x", plan.x_bytes, "STORAGE")
    if plan.x_scale_bytes:
        scales = work.scratch.buffer("scales of x", plan.x_scale_bytes, "STORAGE")
        before["t_out_scales"] = after["t_x_scales"] = scales
    return [work.step(plan.preparation, before, part)], after


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
        subgroup=context.subgroup_size,
        result_row=result_row,
    )
