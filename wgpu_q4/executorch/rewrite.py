"""Rewrites a program so that the readers of one matrix read one packed parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import Node

from wgpu_q4.errors import FormatError
from wgpu_q4.executorch import emit
from wgpu_q4.executorch.constants import real_users, source
from wgpu_q4.executorch.copying import copy_program
from wgpu_q4.executorch.groups import TiedGroup
from wgpu_q4.executorch.parameters import Parameters
from wgpu_q4.executorch.report import LeftAlone, SharedWeight
from wgpu_q4.executorch.uses import Use
from wgpu_q4.format import SMALLEST_NORMAL, ScalesDtype

_INT8_NOTE = (
    "a head with 8-bit activations keeps its int8 parameter, which ExecuTorch's own pattern packs "
    "to the same bytes: still one blob"
)


class Rewriter:
    """Rewrites a copy of a program, one group of readers at a time.

    Args:
        original: is not changed.
        scales_dtype: dtype of the shared scales; None keeps each group's own.
        scales_once: whether embeddings take their scales from the linear's constant.
    """

    def __init__(
        self, original: ExportedProgram, scales_dtype: ScalesDtype | None, scales_once: bool
    ) -> None:
        self.program = copy_program(original)
        self._scales_dtype = scales_dtype
        self._scales_once = scales_once
        self._parameters = Parameters(self.program)
        # Uses name nodes of the original.  A replaced node stands for its replacement.
        self._nodes = {node.name: node for node in self.program.graph.nodes}

    def share(self, group: TiedGroup) -> SharedWeight:
        """Let every reader of the group read one packed parameter."""
        rewritten = [use for use in group.linears if not use.quantized_activations]
        int8 = [use for use in group.linears if use.quantized_activations]
        notes = [_INT8_NOTE] if int8 else []
        scales = group.content.scales
        dtype = self._scales_dtype
        if dtype is not None and scales.dtype != dtype:
            if int8:
                notes.append(f"its scales stay {scales.dtype}: linear_dq8ca_q4gsw needs float32")
            else:
                notes += _precision_notes(scales, dtype)
                scales = _converted(scales, dtype)
        matrix = _Matrix(self._parameters, group, scales)
        looked_up_apart = False
        for use in group.embeddings:
            assert use.indices is not None
            indices = self._nodes[use.indices.name]
            apart = not self._scales_once or matrix.groups == 1 or indices.meta["val"].ndim == 0
            looked_up_apart |= apart
            self._replace(use, matrix.embedding(self._nodes[use.node.name], indices, apart))
        for use in rewritten:
            assert use.x is not None
            x = self._nodes[use.x.name]
            bias = None if use.bias is None else self._nodes[use.bias.name]
            self._replace(use, matrix.linear(self._nodes[use.node.name], x, bias))
        return SharedWeight(
            name=str(matrix.packed.target),
            shape=(matrix.vocab, matrix.embed_dim),
            group_size=matrix.group_size,
            scales_dtype="float16" if scales.dtype == np.float16 else "float32",
            sha256=group.content.sha256,
            packed_bytes=group.content.packed.nbytes,
            scales_bytes=scales.nbytes,
            embeddings=tuple(use.node.name for use in group.embeddings),
            linears=tuple(use.node.name for use in (*rewritten, *int8)),
            how=group.how_held,
            scales_once=not looked_up_apart or matrix.groups == 1,
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
        placeholders = {_source_name(use) for use in replaced if not use.quantized_activations}
        placeholders -= {_source_name(use) for use in replaced if use.quantized_activations}
        left = []
        for node in self.program.graph.find_nodes(op="placeholder"):
            if node.name in placeholders:
                readers = ", ".join(reader.name for reader in real_users(node))
                reason = f"{readers} reads it too: it is kept"
                left.append(LeftAlone(node.name, "parameter", reason))
        return left

    def _replace(self, use: Use, result: Node) -> None:
        anchor = self._nodes[use.node.name]
        self._parameters.replace(anchor, result)
        self._nodes[anchor.name] = result


class _Matrix:
    """The new parameters of one shared matrix, and the ops that read them."""

    def __init__(self, parameters: Parameters, group: TiedGroup, scales: NDArray[Any]) -> None:
        self.vocab, self.groups = scales.shape
        self.embed_dim = group.content.packed.shape[1] * 2
        self.group_size = self.embed_dim // self.groups
        self._parameters, self._scales = parameters, scales
        first = group.embeddings[0].operand
        assert first is not None
        self._name = parameters.unused_name(parameters.owner(first.weight) + "_q4")
        self.packed = parameters.add(self._name, group.content.packed)
        self._by_group = parameters.add(f"{self._name}_scales", np.ascontiguousarray(scales.T))

    def embedding(self, anchor: Node, indices: Node, apart: bool) -> Node:
        """Emit the lookup of rows; ``apart`` gives it scales ``[V, K/G]`` of its own."""
        if apart:
            # With one group a row both orders are the same bytes, which ExecuTorch stores once.
            by_row = self._parameters.add(f"{self._name}_row_scales", self._scales)
            return emit.embedding(anchor, self.packed, by_row, self.group_size, indices)
        ones = self._parameters.add(f"ones_{self.vocab}", np.ones((self.vocab, 1), np.float16))
        return emit.embedding_with_linear_scales(
            anchor, self.packed, ones, self._by_group, self.group_size, indices
        )

    def linear(self, anchor: Node, x: Node, bias: Node | None) -> Node:
        """Emit the product with the matrix."""
        return emit.linear(anchor, self.packed, self._by_group, self.group_size, x, bias)


def _precision_notes(scales: NDArray[Any], dtype: ScalesDtype) -> list[str]:
    # A group of zeros has the smallest float32 as its scale.  That scale may become zero.
    normal = SMALLEST_NORMAL[dtype]
    small = (scales > SMALLEST_NORMAL["float32"]) & (scales < normal)
    if dtype != "float16" or not small.any():
        return []
    return [
        f"{int(small.sum()):,} of its scales are below float16's normal range "
        f"({normal:.2g}) and lose precision"
    ]


def _converted(scales: NDArray[Any], dtype: ScalesDtype) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        converted = scales.astype(dtype)
    if not np.isfinite(converted).all():
        raise FormatError(
            f"a scale is {float(np.abs(scales).max()):.6g}, beyond float16 (65504): leave "
            f"scales_dtype at None"
        )
    return converted


def _source_name(use: Use) -> str | None:
    node = None if use.operand is None else source(use.operand.weight)
    return None if node is None else node.name
