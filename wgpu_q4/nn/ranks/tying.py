"""`wgpu_q4.nn.tie` with a process group: each rank's model keeps its rows of the tied matrix."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from wgpu_q4 import rich
from wgpu_q4.errors import RankError
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.huggingface import replace_methods
from wgpu_q4.nn.naming import dtype_name, mebibytes
from wgpu_q4.nn.places import Places
from wgpu_q4.nn.ranks.group import Ranks
from wgpu_q4.nn.ranks.modules import RankEmbedding, RankLinear, RankModule
from wgpu_q4.nn.ranks.rows import RankRows
from wgpu_q4.ops.several import upload
from wgpu_q4.weight import Q4Weight

_SAMPLED = 64
"""Rows that ranks compare: another seed or checkpoint shows in any of them."""


@dataclass(frozen=True)
class RankTieReport:
    """The outcome of `wgpu_q4.nn.tie` on one rank, in bytes of the tied matrix alone.

    Attributes:
        weight: the rows that this rank holds; None if it holds none.
        rows: which rows these are.
        shape: ``(V, K)`` of the whole matrix.
        ranks: how many ranks share it.
        replaced: the names of the modules that were replaced.
        dtype: the dtype of the former float matrix.
        bytes_before: bytes of the float matrix.
        bytes_after: bytes of the packed rows and their scales on this rank.
    """

    weight: Q4Weight | None = field(repr=False)
    rows: range
    shape: tuple[int, int]
    ranks: int
    replaced: tuple[str, ...]
    dtype: torch.dtype
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        vocab, embed_dim = self.shape
        return (
            f"{' and '.join(self.replaced)} read rows {self.rows.start} to {self.rows.stop} here "
            f"of one 4-bit matrix, {vocab:,} × {embed_dim:,}, on {self.ranks} ranks\n"
            f"  before, whole              {mebibytes(self.bytes_before)}\n"
            f"  now, rows of this rank     {mebibytes(self.bytes_after)}"
        )

    def _repr_html_(self) -> str:
        vocab, embed_dim = self.shape
        rows: list[rich.Row] = [
            ("read by", ", ".join(self.replaced)),
            ("matrix", f"{vocab:,} × {embed_dim:,}, on {self.ranks} ranks"),
            ("rows here", f"{self.rows.start} to {self.rows.stop}"),
            (f"before, whole, {dtype_name(self.dtype)}", self.bytes_before),
            ("now, rows of this rank", self.bytes_after),
        ]
        return rich.table("One 4-bit matrix for embedding and head", rows)


def tie_ranks(
    group: object,
    prepare: Callable[[], tuple[Places, Q4Weight]],
    device: Any,
    accuracy: Accuracy,
) -> RankTieReport:
    """Replace the tied modules of each rank's model, once all ranks can.

    Args:
        group: the process group.
        prepare: finds the modules, and gives the whole matrix.
        device: of this rank, as in `wgpu_q4.embedding`.
        accuracy: of the head.

    Raises:
        RankError: the group cannot be used, another rank failed, or the ranks disagree.
        Exception: what ``prepare`` raised on this rank.
    """
    ranks = Ranks(group)

    def own() -> tuple[tuple[Places, RankRows], dict[str, object]]:
        places, whole = prepare()
        rows = RankRows(ranks, whole, device)
        if rows.weight is not None:
            upload(rows.weight, device)  # fails here if it is too large
        facts = {
            "the shape [V, K] of the matrix": list(whole.shape),
            "group_size": whole.group_size,
            "the dtype of its scales": whole.unchecked_scales.dtype.name,
            "the accuracy of the head": accuracy,
            "the dtype of the model": str(places.matrix.dtype),
            "the modules that hold the matrix": ", ".join(places.modules),
            "the values of the matrix (a checksum)": _checksum(whole),
        }
        return (places, rows), facts

    places, rows = ranks.agree(own)
    _put_in(places, rows, accuracy)
    before = places.matrix.numel() * places.matrix.element_size()
    return RankTieReport(
        *(rows.weight, rows.own, rows.shape, ranks.count, tuple(places.modules)),
        *(places.matrix.dtype, before, rows.nbytes),
    )


def _checksum(whole: Q4Weight) -> int:
    """Return a checksum of `_SAMPLED` rows, in either convention: of a file, few pages are read."""
    vocab = whole.shape[0]
    rows = np.unique(np.linspace(0, vocab - 1, min(_SAMPLED, vocab)).astype(int))
    some = Q4Weight(whole.packed[rows], whole.unchecked_scales[rows], whole.convention)
    return zlib.crc32(some.scales.tobytes(), zlib.crc32(some.packed_as("linear").tobytes()))


def _put_in(places: Places, rows: RankRows, accuracy: Accuracy) -> None:
    replacement: dict[nn.Module, RankModule] = {}
    dtype = places.matrix.dtype
    for module, scale in places.scales.items():
        made = replacement[module] = (
            RankEmbedding(rows, scale, dtype)
            if isinstance(module, nn.Embedding)
            else RankLinear(rows, module.bias, accuracy, dtype)  # type: ignore[arg-type]
        )
        if len(replacement) > 1:
            made.leave_to_another()
    places.replace(replacement)
    replace_methods(places.model, places.matrix.numel())
    if hasattr(type(places.model), "save_pretrained"):
        places.model.save_pretrained = _refuse_to_save  # type: ignore[assignment]


def _refuse_to_save(*_: Any, **__: Any) -> None:
    raise RankError(
        "no rank holds the whole matrix, so none can write a checkpoint of it: tie the model in "
        "one process, without process_group, and call save_pretrained there; or save "
        "model.state_dict() of each rank in a file of its own"
    )
