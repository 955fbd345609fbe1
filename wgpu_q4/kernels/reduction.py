"""The reductions that keep the best logits of each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from wgpu_q4.kernels.dispatch import Dispatch, fold
from wgpu_q4.kernels.pieces import check_choice
from wgpu_q4.kernels.wgsl import Shader

LARGEST_TOP_K = 1024
"""The most logits that ``top_k`` keeps of a row: half of what a workgroup sorts, so that each
dispatch leaves at most half of what it was given."""

_ARGMAX_SLICE = 1024
_TOP_K_SLICE = 1024  # 126 workgroups for V = 128256; twice as many entries take twice as long
_TOP_K_SLICE_OF_MANY = 2048  # fewer dispatches where much is kept
_TOP_K_MANY = 64


Reduce = Literal["argmax", "top_k"]
"""What is kept of a row of logits."""

Entries = Literal["logits", "candidates"]
"""What a reduction reads: floats, or what an earlier reduction left."""


@cache
def reduction_shader(reduce: Reduce, entries: Entries) -> Shader:
    """Return the kernel that keeps the best entries of each slice of each row.

    Raises:
        KernelError: there is no such reduction, or it reads no such entries.
    """
    check_choice("reduction", reduce, get_args(Reduce))
    check_choice("input of a reduction", entries, get_args(Entries))
    pieces = (f"reduce/of_{entries}", "reduce/rank", f"reduce/{reduce}")
    kept = "the largest" if reduce == "argmax" else "the k largest"
    given = "of the logits" if entries == "logits" else "of what an earlier dispatch kept"
    return Shader(f"{reduce}_of_{entries}", pieces, f"{kept} {given} of each row, with their ids")


@dataclass(frozen=True)
class ReducePlan:
    """The dispatches that keep the best logits of each row; each reads what the one before it left.

    Attributes:
        stages: the dispatches.
        stage_bytes: bytes that each writes.
    """

    stages: tuple[Dispatch, ...]
    stage_bytes: tuple[int, ...]


def plan_reduce(
    vocab: int, rows: int, reduce: Reduce, kept: int, limits: Mapping[str, int]
) -> ReducePlan:
    """Return what keeps the ``kept`` largest of ``vocab`` logits in each of ``rows`` rows (≥ 1)."""
    stages: list[Dispatch] = []
    stage_bytes: list[int] = []
    columns, slices = vocab, 0
    while slices != 1:
        slice_ = _reduce_slice(columns, reduce, kept)
        slices = -(-columns // slice_)
        constants = {"COLUMNS": columns, "SLICE": slice_}
        if reduce == "top_k":
            constants["KEPT"] = kept
        shader = reduction_shader(reduce, "candidates" if stages else "logits")
        stages.append(Dispatch(shader, constants, fold(rows * slices, limits)))
        columns = slices * kept
        stage_bytes.append(rows * columns * 8)
    return ReducePlan(tuple(stages), tuple(stage_bytes))


def _reduce_slice(columns: int, reduce: Reduce, kept: int) -> int:
    """Return the entries that a workgroup reduces: a power of two, for few columns all of them."""
    most = _ARGMAX_SLICE
    if reduce == "top_k":
        most = _TOP_K_SLICE if kept <= _TOP_K_MANY else _TOP_K_SLICE_OF_MANY
    return min(most, 1 << (columns - 1).bit_length())
