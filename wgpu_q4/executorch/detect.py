"""Which linears hold an embedding's matrix.  They are found by content; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.fx import Node

from wgpu_q4.executorch.constants import Constants, place, source
from wgpu_q4.executorch.contents import Content, Contents
from wgpu_q4.executorch.report import LeftAlone
from wgpu_q4.executorch.uses import Use, UseFinder


@dataclass(frozen=True)
class TiedLinears:
    """What was found for one embedding.

    Attributes:
        embedding: the embedding.
        linears: every linear that holds the embedding's values and scales, in the order of the
            graph.  All of them are exactly equal, so all can share.
        content: the matrix itself; None if the embedding's matrix cannot be shared, or if no
            linear has its shape.
        near_misses: the linears that look like a partner and are not, and the embedding itself if
            its matrix cannot be shared.
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
    """Find the linears of a program whose weight is the matrix of an embedding.

    A linear may hold the same parameter, an alias of it, or an equal copy, unpacked as int8 or
    packed in either nibble order.  Copies are compared by the SHA-256 of the canonical bytes.

    Args:
        exported_program: what ``torch.export.export`` returns, decomposed or not.
        embedding_node: an embedding of a quantized matrix, or its name.

    Raises:
        ValueError: the program has no such node, or the node is no embedding of a quantized matrix.
    """
    name = embedding_node if isinstance(embedding_node, str) else embedding_node.name
    detector = Detector(exported_program)
    for embedding in detector.embeddings:
        if embedding.node.name == name:
            return detector.match(embedding)
    known = ", ".join(use.node.name for use in detector.embeddings)
    raise ValueError(
        f"{name} is no embedding of a quantized matrix in this program; "
        f"there are: {known or 'none'}"
    )


class Detector:
    """The quantized embeddings and linears of one program, and which of them hold one matrix.

    Attributes:
        constants: the program's constant tensors.
        contents: the matrices, read when first compared.
        embeddings: the embeddings of a quantized matrix, in the order of the graph.
        linears: the linears of a quantized matrix, in the order of the graph.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.constants = Constants(program)
        self.contents = Contents(self.constants)
        uses = UseFinder(self.constants).find(program.graph)
        self.embeddings = [use for use in uses if use.kind == "embedding"]
        self.linears = [use for use in uses if use.kind == "linear"]

    def match(self, embedding: Use) -> TiedLinears:
        """Compare an embedding with every linear."""
        if embedding.operand is None:
            reason = embedding.reason + self._four_bit_head(embedding)
            return TiedLinears(embedding, (), None, (_miss(embedding, reason),))
        vocab, embed_dim = embedding.operand.shape
        name = embedding.node.name
        tied, near = [], []
        content = None
        for linear in self.linears:
            if linear.shape == (embed_dim, vocab) and vocab != embed_dim:
                near.append(_miss(linear, f"its matrix has {name}'s shape transposed"))
            if linear.shape != (vocab, embed_dim):
                continue
            if linear.operand is None:
                near.append(_miss(linear, linear.reason))
                continue
            content = self.contents.of(embedding.operand)
            other = self.contents.of(linear.operand)
            if other is content:
                tied.append(linear)
            else:
                near.append(_miss(linear, f"{name}'s shape, but {content.difference(other)}"))
        return TiedLinears(embedding, tuple(tied), content, tuple(near))

    def _four_bit_head(self, embedding: Use) -> str:
        """Say whether a linear holds a 4-bit matrix of the shape of an embedding's other matrix."""
        heads = [
            use.node.name
            for use in self.linears
            if use.operand is not None and use.shape == embedding.shape
        ]
        if not heads:
            return ""
        return (
            f", while {' and '.join(heads)} holds a 4-bit matrix of that shape: matrices in two "
            f"formats cannot be one. Quantize both to the same 4 bits to share one"
        )

    def how_held(self, uses: Sequence[Use]) -> str:
        """Say how the readers of one matrix hold it: the same parameter, an alias, or copies."""
        operands = [use.operand for use in uses if use.operand is not None]
        if len({source(operand.weight) for operand in operands}) == 1:
            return "the same parameter"
        if len({place(self.contents.tensors(operand)[0]) for operand in operands}) == 1:
            return "an alias"
        return "equal copies"


def _miss(use: Use, reason: str) -> LeftAlone:
    return LeftAlone(use.node.name, use.kind, reason)
