"""The steps that keep the best logits of each row, which `argmax` and `top_k` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgpu_q4.device.parts import DevicePart
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.kernels import ReducePlan

Kept = Mapping[str, Any]
"""The resources to which the last step of a reduction writes, by the names of the bindings."""


def part_step(
    work: Workspace,
    plan: ReducePlan,
    logits: Any,
    number: int,
    rows: int,
    first_id: int,
    kept: Kept,
    part: DevicePart | None,
) -> Step:
    """Return the step that reduces the logits of one part of a weight to candidates.

    Args:
        work: the workspace.
        plan: the planned dispatches.
        logits: a buffer of float32 ``[M, V]``, V of the part.
        number: which of the parts.
        rows: M.
        first_id: the id of the part's first logit.
        kept: what the last step of the reduction writes to, by the names of the bindings.
        part: the part of the weight.
    """
    place = rows, first_id, plan.first_slots[number], plan.slots
    resources = {
        **_written_by(work, plan, 0, kept),
        "t_in": logits,
        "sizes": work.scratch.sizes(f"reduction {number}", *place),
    }
    return work.step(plan.first[number], resources, part)


def later_steps(
    work: Workspace, plan: ReducePlan, rows: int, kept: Kept, part: DevicePart | None
) -> list[Step]:
    """Return the steps that reduce the candidates of all parts; the last one writes to ``kept``.

    The arguments are those of `part_step`.
    """
    if not plan.later:
        return []
    steps, sizes = [], work.scratch.sizes("candidates", rows)
    for number, stage in enumerate(plan.later, 1):
        source = _written_by(work, plan, number - 1, kept)["t_out"]
        target = _written_by(work, plan, number, kept)
        steps.append(work.step(stage, {**target, "t_in": source, "sizes": sizes}, part))
    return steps


def entries_kept(work: Workspace, plan: ReducePlan) -> dict[str, Any]:
    """Return what the last step writes to if the host is to get bits and ids: a scratch buffer."""
    return {"t_out": work.scratch.result("kept of logits", plan.stage_bytes[-1])}


def _written_by(work: Workspace, plan: ReducePlan, number: int, kept: Kept) -> Kept:
    """Return what stage ``number`` writes; the next stage reads it."""
    if number == len(plan.later):
        return kept
    nbytes = plan.stage_bytes[number]
    return {"t_out": work.scratch.buffer(f"candidates {number % 2}", nbytes, "STORAGE")}
