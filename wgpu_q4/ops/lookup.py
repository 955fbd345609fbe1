"""The steps of a lookup of rows by id, one for each part of the weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import FloatDtype
from wgpu_q4.device.parts import DevicePart
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.kernels import Layout, plan_embedding
from wgpu_q4.weight import Q4Weight


class Lookup(NamedTuple):
    """What is looked up.

    Attributes:
        weight: the weight.
        layout: how the device holds it.
        output: the dtype of the rows.
        ids: how many.
    """

    weight: Q4Weight
    layout: Layout
    output: FloatDtype
    ids: int


class Group(NamedTuple):
    """Rows of one part that are looked up, which stand together.

    Attributes:
        part: the part.
        first: the index of the first of them.
        rows: how many there are.
    """

    part: DevicePart
    first: int
    rows: int


def by_part(
    resident: DeviceWeight, ids: NDArray[np.int32]
) -> tuple[list[Group], NDArray[np.int32], NDArray[np.intp] | None]:
    """Return the groups of ``ids`` (at least one, flat), their rows, and the order of the groups.

    The order is None where one part holds all rows.
    """
    numbers, rows = resident.places_of(ids)
    if ids.size == 1 or (numbers == numbers[0]).all():
        return [Group(resident.parts[numbers[0]], 0, ids.size)], rows, None
    groups, first = [], 0
    for number, count in enumerate(np.bincount(numbers).tolist()):
        if count:
            groups.append(Group(resident.parts[number], first, count))
        first += count
    order = numbers.argsort(kind="stable")
    return groups, rows[order], order


def group_steps(
    work: Workspace, groups: Iterable[Group], lookup: Lookup, rows: Any, out: Any
) -> list[Step]:
    """Return the steps that look groups up: the parts together do no more than one part would.

    Args:
        work, lookup: as for `lookup_steps`.
        groups: the groups.
        rows: what to bind of their rows, int32.
        out: what to bind of the result, which has their order.
    """
    context, embed_dim = work.context, lookup.weight.shape[1]
    steps = []
    for part, first, count in groups:
        dispatch = context.plan(
            *(plan_embedding, part.shape, count, lookup.layout, lookup.output, "buffer"),
            half_support=context.half_support,
            of_part=True,
            grouped=True,
        )
        role = f"rows from {part.first_row}"
        resources = {
            **part.bindings(context, lookup.weight, lookup.layout),
            "part": work.scratch.sizes(f"place of {role}", 0, first),
            "out_sizes": work.scratch.sizes(role, embed_dim, count, 1, 1),
            "t_indices": rows,
            "t_out": out,
        }
        steps.append(work.step(dispatch, resources, part))
    return steps


def lookup_steps(
    work: Workspace,
    parts: Iterable[DevicePart],
    lookup: Lookup,
    ids: Any,
    out: Any,
    *,
    unknown_ids: bool = False,
) -> list[Step]:
    """Return the steps that look rows up, one for each part of the weight.

    Args:
        work: the workspace.
        parts: the parts of the weight that are read: those that hold the rows.
        lookup: what is looked up.
        ids: what to bind of int32 ``[ids]``.
        out: what to bind of the result ``[ids, K]``.
        unknown_ids: True if nobody has checked that the ids are in the vocabulary, and ``parts``
            are all of them.  The first step then writes zeros for what it does not know, and the
            others what they know.
    """
    context, embed_dim = work.context, lookup.weight.shape[1]
    given = {
        "t_out": out,
        "out_sizes": work.scratch.sizes("embedding", embed_dim, lookup.ids, 1, 1),
        "t_indices": ids,
    }
    steps: list[Step] = []
    for part in parts:
        fills = part.is_whole or (unknown_ids and not steps)
        dispatch = context.plan(
            *(plan_embedding, part.shape, lookup.ids, lookup.layout, lookup.output, "buffer"),
            half_support=context.half_support,
            of_part=not fills,
        )
        resources = given | part.bindings(context, lookup.weight, lookup.layout)
        steps.append(work.step(dispatch, resources, part))
    return steps
