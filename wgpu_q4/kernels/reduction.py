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

Results = Literal["entries", "ids", "values_and_ids"]
"""What the last dispatch of a reduction writes: bits and ids in pairs, ids alone, or two arrays."""

Entries = Literal["logits", "candidates"]
"""What a reduction reads: floats, or what an earlier reduction left."""


@cache
def reduction_shader(reduce: Reduce, entries: Entries, results: Results = "entries") -> Shader:
    """Return the kernel that keeps the best entries of each slice of each row.

    Raises:
        KernelError: there is no such reduction, or it reads no such entries or leaves no such
            results.
    """
    check_choice("reduction", reduce, get_args(Reduce))
    check_choice("input of a reduction", entries, get_args(Entries))
    check_choice("result of a reduction", results, get_args(Results))
    pieces = (
        *(f"reduce/of_{entries}", "reduce/order", "reduce/rank"),
        *(f"reduce/to_{results}", f"reduce/{reduce}"),
    )
    kept = "the largest" if reduce == "argmax" else "the k largest"
    given = "of the logits" if entries == "logits" else "of what an earlier dispatch kept"
    left = {
        "entries": "with their ids",
        "ids": "their ids alone",
        "values_and_ids": "their values and ids apart",
    }
    suffix = "" if results == "entries" else f"_to_{results}"
    summary = f"{kept} {given} of each row, {left[results]}"
    return Shader(f"{reduce}_of_{entries}{suffix}", pieces, summary)


@dataclass(frozen=True)
class ReducePlan:
    """The dispatches that keep the best logits of each row; each reads what the one before it left.

    Attributes:
        first: what reads logits, a dispatch for each part of the weight.  What they keep of a row
            makes one row of candidates, in the order of the parts.
        first_slots: the slot of that row, of ``kept`` entries each, where each part begins.
        slots: slots of that row.
        later: the dispatches that read candidates.
        stage_bytes: bytes that those of ``first`` write together, and each of ``later``.
    """

    first: tuple[Dispatch, ...]
    first_slots: tuple[int, ...]
    slots: int
    later: tuple[Dispatch, ...]
    stage_bytes: tuple[int, ...]

    @property
    def stages(self) -> tuple[Dispatch, ...]:
        """All dispatches in their order."""
        return (*self.first, *self.later)


def plan_reduce(
    vocabs: tuple[int, ...],
    rows: int,
    reduce: Reduce,
    kept: int,
    limits: Mapping[str, int],
    results: Results = "entries",
) -> ReducePlan:
    """Return what keeps the ``kept`` largest logits in each of ``rows`` rows (at least one).

    Args:
        vocabs: rows of each part of the weight, which are the logits of a row that it gives.
        rows: rows of x.
        reduce: the reduction.
        kept: how many logits it keeps, at most as many as there are.
        limits: the device's limits.
        results: what the last dispatch writes.
    """

    def stage(columns: int, slice_: int, entries: Entries, left: Results) -> Dispatch:
        constants = {"COLUMNS": columns, "SLICE": slice_}
        if reduce == "top_k":
            constants["KEPT"] = kept
        grid = fold(rows * -(-columns // slice_), limits)
        return Dispatch(reduction_shader(reduce, entries, left), constants, grid)

    # A part may have fewer logits than are kept, and a slice has as many places at least.
    slices = [_reduce_slice(max(vocab, kept), reduce, kept) for vocab in vocabs]
    counts = [-(-vocab // slice_) for vocab, slice_ in zip(vocabs, slices, strict=True)]
    left = slots = sum(counts)
    is_last = left == 1
    first = [
        stage(vocab, slice_, "logits", results if is_last else "entries")
        for vocab, slice_ in zip(vocabs, slices, strict=True)
    ]
    first_slots = [sum(counts[:number]) for number in range(len(vocabs))]
    later, stage_bytes = [], [rows * slots * kept * 8]
    while left != 1:
        columns = left * kept
        slice_ = _reduce_slice(columns, reduce, kept)
        left = -(-columns // slice_)
        later.append(stage(columns, slice_, "candidates", results if left == 1 else "entries"))
        stage_bytes.append(rows * left * kept * 8)
    return ReducePlan(tuple(first), tuple(first_slots), slots, tuple(later), tuple(stage_bytes))


def _reduce_slice(columns: int, reduce: Reduce, kept: int) -> int:
    """Return the entries that a workgroup reduces: a power of two, for few columns all of them."""
    most = _ARGMAX_SLICE
    if reduce == "top_k":
        most = _TOP_K_SLICE if kept <= _TOP_K_MANY else _TOP_K_SLICE_OF_MANY
    return min(most, 1 << (columns - 1).bit_length())
