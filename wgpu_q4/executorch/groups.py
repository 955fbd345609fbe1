"""The readers of one matrix: every embedding and every linear that can share it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wgpu_q4.executorch.contents import Content, Key
from wgpu_q4.executorch.detect import Detector, TiedLinears
from wgpu_q4.executorch.report import LeftAlone
from wgpu_q4.executorch.uses import Use


@dataclass(frozen=True)
class TiedGroup:
    """Embeddings and linears that hold equal matrices.

    Attributes:
        content: the matrix.
        embeddings: at least one, in the order of the graph.
        linears: at least one, in the order of the graph.
        how_held: how they hold it: ``"the same parameter"``, ``"an alias"``, ``"equal copies"``.
    """

    content: Content
    embeddings: tuple[Use, ...]
    linears: tuple[Use, ...]
    how_held: str

    @property
    def readers(self) -> tuple[Use, ...]:
        """The embeddings, then the linears."""
        return self.embeddings + self.linears


def group_by_matrix(
    detector: Detector, found: Iterable[TiedLinears]
) -> tuple[list[TiedGroup], list[LeftAlone]]:
    """Group the embeddings that have a partner by their matrix.

    Returns:
        The groups, and what is left alone with the reasons.
    """
    tied: dict[Key, list[TiedLinears]] = {}
    left: dict[tuple[str, str], LeftAlone] = {}

    def leave(alone: LeftAlone) -> None:
        # Two embeddings may name the same linear for the same reason.
        left.setdefault((alone.node, alone.reason), alone)

    for match in found:
        name = match.embedding.node.name
        for miss in match.near_misses:
            leave(miss)
        if match.embedding.operand is None:
            continue  # it is among the near misses
        if not match.linears or match.content is None:
            leave(LeftAlone(name, "embedding", "no linear holds its matrix"))
        elif not np.isfinite(match.content.scales).all():
            leave(LeftAlone(name, "embedding", "its scales are not all finite"))
        else:
            tied.setdefault(match.content.key, []).append(match)
    return [_group(detector, matches) for matches in tied.values()], list(left.values())


def _group(detector: Detector, matches: list[TiedLinears]) -> TiedGroup:
    content = matches[0].content
    assert content is not None
    embeddings = tuple(match.embedding for match in matches)
    linears = matches[0].linears
    return TiedGroup(content, embeddings, linears, detector.how_held(embeddings + linears))
