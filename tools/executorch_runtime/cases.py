"""The programs that are exported and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Head = Literal["weight-only", "8-bit activations"]


@dataclass(frozen=True)
class Case:
    """A program: ids → embedding → (norm) → head, with one 4-bit matrix in both places.

    Attributes:
        ids: the shape of the ids.
        dynamic: the dimensions of the ids that are dynamic.  ``executor_runner`` runs a program at
            its largest sizes, which are those of ``ids``.
        ids_dtype: ``"int64"`` or ``"int32"``.
        head: how the head's activations are held.
        norm: whether a norm is between embedding and head.
        bias: whether the head has a bias.
        vocab: ``V``.
        embed_dim: ``K``.
        group_size: ``G``.
        shared: whether `share_tied_weights` is applied; else it is what ExecuTorch makes by itself
            of a model whose head holds an equal copy.
        scales_once: as in `share_tied_weights`.
    """

    ids: tuple[int, ...] = (1, 7)
    dynamic: tuple[int, ...] = ()
    ids_dtype: str = "int64"
    head: Head = "weight-only"
    norm: bool = False
    bias: bool = False
    vocab: int = 512
    embed_dim: int = 256
    group_size: int = 32
    shared: bool = True
    scales_once: bool = True

    def __str__(self) -> str:
        sizes = [
            f"≤{size}" if axis in self.dynamic else str(size) for axis, size in enumerate(self.ids)
        ]
        words = [
            f"{self.vocab}×{self.embed_dim} G={self.group_size}",
            f"{self.ids_dtype} ids [{', '.join(sizes)}]",
            self.head,
        ]
        words += [name for name in ("norm", "bias") if getattr(self, name)]
        if not self.shared:
            words.append("untied")
        elif not self.scales_once:
            words.append("scales twice")
        return ", ".join(words)


ROW, ROWS = (1, 7), (3, 5)
INT8: Head = "8-bit activations"

CASES = (
    Case(),
    Case((1, 1)),
    Case((5,)),
    Case(ROWS),
    Case((2, 3, 4)),
    Case((1, 64), dynamic=(1,)),
    Case((4, 5), dynamic=(0,)),
    Case((4, 16), dynamic=(0, 1)),
    Case(ids_dtype="int32"),
    Case((1, 64), dynamic=(1,), ids_dtype="int32"),
    Case(norm=True, bias=True),
    Case((1, 64), dynamic=(1,), norm=True),
    Case(group_size=16, norm=True),
    Case(group_size=64, norm=True),
    Case(group_size=256),
    Case(vocab=516),
    Case(vocab=12, embed_dim=64),
    Case(scales_once=False),
    Case((4, 5), dynamic=(0,), scales_once=False),
    Case(shared=False),
    Case((1, 8), head=INT8),
    Case((1, 1), head=INT8),
    Case((2, 4), head=INT8, norm=True),
    Case((1, 64), dynamic=(1,), head=INT8),
    Case((1, 8), head=INT8, vocab=516),
    Case((1, 8), head=INT8, shared=False),
)

LARGE = (
    Case((1, 8), vocab=49152, embed_dim=576, norm=True),  # SmolLM2 135M
    Case((1, 8), vocab=128256, embed_dim=2048),  # Llama 3.2 1B
)
