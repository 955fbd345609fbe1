"""What keeps the best logits of each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wgpu_q4 import kernels
from wgpu_q4.kernels import Reduce
from wgpu_q4.plan.dispatch import Plan, fold

LARGEST_TOP_K = 1024
"""The most logits that ``top_k`` keeps of a row: half of what a workgroup sorts, so that each
dispatch leaves at most half of what it was given."""

_ARGMAX_SLICE = 1024
_TOP_K_SLICE = 1024  # 126 workgroups for V = 128256; twice as many entries take twice as long
_TOP_K_SLICE_OF_MANY = 2048  # fewer dispatches where much is kept
_TOP_K_MANY = 64


@dataclass(frozen=True)
class ReducePlan:
    """What keeps the best logits of each row: dispatches, each working on what the last one left.

    Attributes:
        stages: the dispatches.
        stage_bytes: bytes that each writes.
    """

    stages: tuple[Plan, ...]
    stage_bytes: tuple[int, ...]


def plan_reduce(
    vocab: int, rows: int, reduce: Reduce, kept: int, limits: Mapping[str, int]
) -> ReducePlan:
    """The ``kept`` largest of ``vocab`` logits in each of ``rows`` rows (at least one)."""
    stages: list[Plan] = []
    stage_bytes: list[int] = []
    columns, parts = vocab, 0
    while parts != 1:
        slice_ = _reduce_slice(columns, reduce, kept)
        parts = -(-columns // slice_)
        constants = {"COLUMNS": columns, "SLICE": slice_}
        if reduce == "top_k":
            constants["KEPT"] = kept
        variant = kernels.reduction(reduce, "candidates" if stages else "logits")
        stages.append(Plan(variant, constants, fold(rows * parts, limits)))
        columns = parts * kept
        stage_bytes.append(rows * columns * 8)
    return ReducePlan(tuple(stages), tuple(stage_bytes))


def _reduce_slice(columns: int, reduce: Reduce, kept: int) -> int:
    """Entries that a workgroup reduces: a power of two, no more than there are in a row."""
    most = _ARGMAX_SLICE
    if reduce == "top_k":
        most = _TOP_K_SLICE if kept <= _TOP_K_MANY else _TOP_K_SLICE_OF_MANY
    return min(most, 1 << (columns - 1).bit_length())
