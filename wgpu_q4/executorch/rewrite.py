"""Rewrites a program so that the readers of one matrix read one packed parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import Node

from wgpu_q4.arrays import to_numpy
from wgpu_q4.errors import ExportError, FormatError
from wgpu_q4.executorch import emit
from wgpu_q4.executorch.activations import write_quantized_rows
from wgpu_q4.executorch.constants import Constants, real_users, source
from wgpu_q4.executorch.copying import copy_program
from wgpu_q4.executorch.emit import Emitter
from wgpu_q4.executorch.forms import Runtime
from wgpu_q4.executorch.groups import TiedGroup
from wgpu_q4.executorch.parameters import Parameters
from wgpu_q4.executorch.recognize import dynamic_sizes
from wgpu_q4.executorch.report import LeftAlone, SharedWeight
from wgpu_q4.executorch.uses import Use
from wgpu_q4.format import SMALLEST_NORMAL, ScalesDtype

_BFLOAT16_NOTE = (
    "bfloat16: rows are those of the eager program; logits are summed in float32, from values that "
    "are not rounded to bfloat16, and rounded once; the casts run outside of the delegate"
)


@dataclass(frozen=True)
class Options:
    """What the caller of the pass asked for.

    Attributes:
        runtime: the runtime that must run the program; None if one of them will do.
        scales_dtype: dtype of the shared scales.
        scales_once: whether embeddings take their scales from the linear's constant wherever that
            can be written.
        force_fp16: whether the program will be lowered with the compile option ``force_fp16``.
    """

    runtime: Runtime | None = None
    scales_dtype: ScalesDtype = "float32"
    scales_once: bool = True
    force_fp16: bool = False


class Rewriter:
    """Rewrites a copy of a program, one group of readers at a time.

    Args:
        original: is not changed.
        options: what the caller asked for.

    Attributes:
        program: the copy.
        written: the nodes that were written, in the order of writing.
    """

    def __init__(self, original: ExportedProgram, options: Options) -> None:
        self.program = copy_program(original)
        self.written: list[Node] = []
        self._options = options
        self._constants = Constants(self.program)
        self._parameters = Parameters(self.program)
        # Uses name nodes of the original.  A replaced node stands for its replacement.
        self._nodes = {node.name: node for node in self.program.graph.nodes}

    def share(self, group: TiedGroup) -> SharedWeight:
        """Let every reader of the group read one packed parameter."""
        scales, notes = _stored(group.content.scales, self._options.scales_dtype)
        matrix = _Matrix(self._parameters, group, scales)
        once = [self._share_embedding(use, matrix) for use in group.embeddings]
        for use in group.linears:
            self._share_linear(use, matrix)
        if any(use.dtype == torch.bfloat16 for use in group.readers):
            notes.append(_BFLOAT16_NOTE)
        return SharedWeight(
            name=str(matrix.packed.target),
            shape=(matrix.vocab, matrix.embed_dim),
            group_size=matrix.group_size,
            scales_dtype=self._options.scales_dtype,
            sha256=group.content.sha256,
            packed_bytes=group.content.packed.nbytes,
            scales_bytes=scales.nbytes,
            embeddings=tuple(use.node.name for use in group.embeddings),
            linears=tuple(use.node.name for use in group.linears),
            weight_only=tuple(use.node.name for use in group.linears if use.rows is None),
            how=group.how_held,
            scales_once=all(once),
            notes=tuple(notes),
        )

    def finish(self, memory: Iterable[int]) -> ExportedProgram:
        """Drop what lost its last reader, and return the program.

        Args:
            memory: addresses of the tensors that the replaced nodes read.
        """
        self.program.graph.eliminate_dead_code()
        self._parameters.drop_unread(memory)
        self.program.graph_module.recompile()
        self.program.graph.lint()
        self.program.validate()  # type: ignore[no-untyped-call]
        return self.program

    def still_read(self, replaced: Sequence[Use]) -> list[LeftAlone]:
        """Report the original parameters that something besides the replaced nodes reads."""
        sources = [source(use.operand.weight) for use in replaced if use.operand is not None]
        names = {node.name for node in sources if node is not None}
        left = []
        for node in self.program.graph.find_nodes(op="placeholder"):
            if node.name in names:
                readers = ", ".join(reader.name for reader in real_users(node))
                reason = f"{readers} reads it too: it is kept"
                left.append(LeftAlone(node.name, "parameter", reason))
        return left

    def _share_embedding(self, use: Use, matrix: _Matrix) -> bool:
        """Replace an embedding, and return whether it takes its scales from the linear's."""
        assert use.indices is not None
        anchor, indices = self._nodes[use.node.name], self._nodes[use.indices.name]
        write = Emitter(anchor, self.written)
        # With one group a row, both orders of the scales are the same bytes.
        once = matrix.groups > 1 and self._options.scales_once and self._can_gather(indices)
        rows = matrix.lookup(write, indices, from_linear=once)
        self._replace(anchor, write.cast(rows, use.dtype))
        return once or matrix.groups == 1

    def _can_gather(self, indices: Node) -> bool:
        """Return whether gathered scales run on every runtime that runs the program at all.

        The WebGPU runtime gathers a dynamic number of scales only for ids that are an input of the
        program (`wgpu_q4.executorch.forms`).
        """
        if self._options.runtime == "vulkan" or self._options.force_fp16:
            return True
        dynamic = dynamic_sizes(indices)
        if dynamic == 0 or indices.op == "placeholder":
            return True
        return dynamic > 1  # WebGPU runs this program in no form

    def _share_linear(self, use: Use, matrix: _Matrix) -> None:
        """Replace a linear.  ExecuTorch's op takes a matrix, so a batch is folded into one."""
        x = use.x if use.rows is None else use.rows.x
        assert x is not None
        anchor, x = self._nodes[use.node.name], self._nodes[x.name]
        write = Emitter(anchor, self.written)
        folded = write.cast(emit.folded(write, x), torch.float32)
        if use.rows is not None:
            folded = write_quantized_rows(write, use.rows, folded)
        bias = None if use.bias is None else self._bias(self._nodes[use.bias.name])
        product = write.cast(matrix.product(write, folded, bias), use.dtype)
        self._replace(anchor, emit.unfolded(write, product, x))

    def _bias(self, bias: Node) -> Node:
        """Return the bias in float32; the runtimes require a constant, so it is not cast later."""
        if bias.meta["val"].dtype == torch.float32:
            return bias
        tensor = self._constants.tensor(bias)
        if tensor is None:
            raise ExportError(
                f"{bias.name}, the bias of a head, is computed by the program: the runtimes take a "
                f"constant bias only"
            )
        return self._parameters.add(f"{bias.name}_float32", to_numpy(tensor, bias.name))

    def _replace(self, anchor: Node, result: Node) -> None:
        self._parameters.replace(anchor, result)
        self._nodes[anchor.name] = result


class _Matrix:
    """The new parameters of one shared matrix, and the ops that read them."""

    def __init__(self, parameters: Parameters, group: TiedGroup, scales: NDArray[Any]) -> None:
        self.vocab, self.groups = (int(size) for size in scales.shape)
        self.embed_dim = group.content.packed.shape[1] * 2
        self.group_size = self.embed_dim // self.groups
        self._parameters, self._scales = parameters, scales
        first = group.embeddings[0].operand
        assert first is not None
        self._name = parameters.unused_name(parameters.owner(first.weight) + "_q4")
        self.packed = parameters.add(self._name, group.content.packed)
        self._by_group = parameters.add(f"{self._name}_scales", np.ascontiguousarray(scales.T))

    def lookup(self, write: Emitter, indices: Node, *, from_linear: bool) -> Node:
        """Write the lookup of rows, with the linear's scales or with scales of its own."""
        if not from_linear:
            by_row = self._parameters.add(f"{self._name}_row_scales", self._scales)
            return emit.embedding(write, self.packed, by_row, self.group_size, indices)
        return emit.embedding_with_linear_scales(
            write,
            self.packed,
            self._ones(self.vocab),
            self._by_group,
            self.group_size,
            indices,
            self._ones(1) if emit.needs_one(indices) else None,
        )

    def _ones(self, rows: int) -> Node:
        ones = np.ones((rows, 1), self._scales.dtype)
        return self._parameters.add(f"ones_{rows}", ones)

    def product(self, write: Emitter, x: Node, bias: Node | None) -> Node:
        """Write the product with a matrix x ``[n, K]``."""
        return emit.linear(write, self.packed, self._by_group, self.group_size, x, bias)


def _stored(scales: NDArray[Any], dtype: ScalesDtype) -> tuple[NDArray[Any], list[str]]:
    """Return scales in the dtype that is stored, and what a reader should know about it."""
    with np.errstate(over="ignore"):
        stored = scales.astype(dtype)
    if not np.isfinite(stored).all():
        raise FormatError(
            f"a scale is {float(np.abs(scales).max()):.6g}, beyond float16 (65504): leave "
            f"scales_dtype at None"
        )
    # A group of zeros has the smallest float32 as its scale.  That scale may become zero.
    normal = SMALLEST_NORMAL[dtype]
    small = (scales > SMALLEST_NORMAL["float32"]) & (scales < normal)
    if not small.any():
        return stored, []
    return stored, [
        f"{int(small.sum()):,} of its scales are below float16's normal range "
        f"({normal:.2g}) and lose precision"
    ]
