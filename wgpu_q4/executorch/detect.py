"""Which linears hold an embedding's matrix, found by content and never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.fx import Node

from wgpu_q4.executorch.constants import place, source
from wgpu_q4.executorch.contents import Content, Contents
from wgpu_q4.executorch.report import LeftAlone
from wgpu_q4.executorch.uses import Use, find_uses, use_of


@dataclass(frozen=True)
class TiedLinears:
    """What was found for one embedding.

    Attributes:
        embedding: the embedding.
        linears: the linears whose matrix is the same numbers with the same scales, all of them, in
            the order of the graph.  They are exactly equal, so that sharing with several is no
            guess; a caller that wants one partner should look at the length.
        content: the matrix itself; None if the embedding's cannot be shared.
        near_misses: linears that look like it and are not, and the embedding if it is refused.
    """

    embedding: Use
    linears: tuple[Use, ...]
    content: Content | None
    near_misses: tuple[LeftAlone, ...]

    @property
    def linear(self) -> Node | None:
        """The node of the one tied linear; None if there is none or more than one."""
        return self.linears[0].node if len(self.linears) == 1 else None

    @property
    def ambiguous(self) -> bool:
        """Whether more than one linear holds the matrix."""
        return len(self.linears) > 1


def detect_tied_linear_weight(
    exported_program: ExportedProgram, embedding_node: Node | str
) -> TiedLinears:
    """The linears of a program whose weight is the matrix of an embedding.

    It may be the same parameter, an alias of it, or an equal copy, unpacked as int8 or packed in
    either nibble order.  Copies are compared by the SHA-256 of the canonical bytes.

    Args:
        exported_program: what ``torch.export.export`` gives, decomposed or not.
        embedding_node: an embedding of a quantized matrix, or its name.

    Raises:
        ValueError: no such node, or one that looks no rows of a quantized matrix up.
    """
    name = embedding_node if isinstance(embedding_node, str) else embedding_node.name
    node = next((node for node in exported_program.graph.nodes if node.name == name), None)
    use = None if node is None else use_of(exported_program, node)
    if use is None or use.kind != "embedding":
        known = [use.node.name for use in find_uses(exported_program) if use.kind == "embedding"]
        raise ValueError(
            f"{name} is no embedding of a quantized matrix in this program; "
            f"there are: {', '.join(known) or 'none'}"
        )
    return match(use, find_uses(exported_program), Contents(exported_program))


def match(embedding: Use, uses: Sequence[Use], contents: Contents) -> TiedLinears:
    """`detect_tied_linear_weight` on uses that are known already."""
    if embedding.operand is None:
        refused = LeftAlone(embedding.node.name, "embedding", embedding.reason)
        return TiedLinears(embedding, (), None, (refused,))
    vocab, embed_dim = embedding.operand.shape
    tied, near = [], []
    content = None
    for linear in (use for use in uses if use.kind == "linear"):
        if linear.shape == (embed_dim, vocab) and vocab != embed_dim:
            near.append(_miss(linear, f"its matrix has {embedding.node.name}'s shape transposed"))
        if linear.shape != (vocab, embed_dim):
            continue
        if linear.operand is None:
            near.append(_miss(linear, linear.reason))
            continue
        content = contents.of(embedding.operand)
        other = contents.of(linear.operand)
        if other is content:
            tied.append(linear)
        else:
            difference = content.difference(other)
            near.append(_miss(linear, f"{embedding.node.name}'s shape, but {difference}"))
    return TiedLinears(embedding, tuple(tied), content, tuple(near))


def how_held(uses: Sequence[Use], contents: Contents) -> str:
    """How the readers of one matrix hold it: the same parameter, an alias, or equal copies."""
    operands = [use.operand for use in uses if use.operand is not None]
    if len({source(operand.weight) for operand in operands}) == 1:
        return "the same parameter"
    if len({place(contents.tensors(operand)[0]) for operand in operands}) == 1:
        return "an alias"
    return "equal copies"


def _miss(use: Use, reason: str) -> LeftAlone:
    return LeftAlone(use.node.name, use.kind, reason)
