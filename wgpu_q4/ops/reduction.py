"""The steps that keep the best logits of each row, which `argmax` and `top_k` share."""

from __future__ import annotations

from typing import Any

from wgpu_q4.device.context import Context
from wgpu_q4.device.pipelines import BindGroups, Step
from wgpu_q4.kernels import ReducePlan


def part_step(
    context: Context,
    plan: ReducePlan,
    logits: Any,
    number: int,
    rows: int,
    first_id: int,
    bind_groups: BindGroups | None,
) -> Step:
    """Return the step that reduces the logits of one part of a weight to candidates.

    Args:
        context: that of the device.
        plan: the planned dispatches.
        logits: a buffer of float32 ``[M, V]``, V of the part.
        number: which of the parts.
        rows: M.
        first_id: the id of the part's first logit.
        bind_groups: where the bind group is kept for the next call.
    """
    place = rows, first_id, plan.first_slots[number], plan.slots
    resources = {
        "t_out": _kept_of(context, plan, 0),
        "t_in": logits,
        "sizes": context.scratch.sizes(f"reduction {number}", *place),
    }
    return context.pipelines.step(plan.first[number], resources, bind_groups)


def later_steps(
    context: Context, plan: ReducePlan, rows: int, bind_groups: BindGroups | None
) -> tuple[list[Step], Any]:
    """Return the steps that reduce the candidates of all parts, and the buffer of what they keep.

    The arguments are those of `part_step`.
    """
    steps, source = [], _kept_of(context, plan, 0)
    if plan.later:
        sizes = context.scratch.sizes("candidates", rows)
    for number, stage in enumerate(plan.later, 1):
        target = _kept_of(context, plan, number)
        resources = {"t_out": target, "t_in": source, "sizes": sizes}
        steps.append(context.pipelines.step(stage, resources, bind_groups))
        source = target
    return steps, source


def _kept_of(context: Context, plan: ReducePlan, number: int) -> Any:
    """Return the buffer that stage ``number`` writes; the next stage reads it."""
    nbytes = plan.stage_bytes[number]
    if number == len(plan.later):
        return context.scratch.result("kept of logits", nbytes)
    return context.scratch.buffer(f"candidates {number % 2}", nbytes, "STORAGE")
