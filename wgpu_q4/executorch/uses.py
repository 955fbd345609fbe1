"""The nodes that read a 4-bit matrix: embeddings that look rows up, linears that multiply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.fx import Graph, Node

import wgpu_q4.torch_ops  # noqa: F401  registers the ops that are looked for
from wgpu_q4.executorch.activations import QuantizedRows, quantized_rows
from wgpu_q4.executorch.constants import Constants, arguments
from wgpu_q4.executorch.operands import (
    FLOATS,
    Operand,
    OperandReader,
    Packing,
    Unsupported,
    is_dequantized,
)

Kind = Literal["embedding", "linear"]

_TRANSPOSES = {
    torch.ops.aten.t.default,
    torch.ops.aten.t_copy.default,
    torch.ops.aten.numpy_T.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.permute_copy.default,
    torch.ops.aten.transpose.int,
}


@dataclass(frozen=True)
class Use:
    """A node that reads a quantized matrix.

    Attributes:
        node: the node.
        kind: embedding or linear.
        operand: the matrix; None if it cannot be shared.
        reason: why it cannot be shared, or an empty string.
        shape: ``(V, K)`` of the matrix, or None if it is unknown.
        indices: the ids of an embedding.
        x: the activations of a linear.
        bias: the bias of a linear, or None.
        rows: the ops that quantize x to 8 bits row by row, or None.
    """

    node: Node
    kind: Kind
    operand: Operand | None
    reason: str = ""
    shape: tuple[int, int] | None = None
    indices: Node | None = None
    x: Node | None = None
    bias: Node | None = None
    rows: QuantizedRows | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the result."""
        dtype: torch.dtype = self.node.meta["val"].dtype
        return dtype


class UseFinder:
    """Finds the uses of quantized matrices in one program."""

    def __init__(self, constants: Constants) -> None:
        self._operands = OperandReader(constants)

    def find(self, graph: Graph) -> list[Use]:
        """Return every embedding and linear of a quantized matrix, in the order of the graph."""
        found = (self.use_of(node) for node in graph.nodes)
        return [use for use in found if use is not None]

    def use_of(self, node: Node) -> Use | None:
        """Return how ``node`` uses a quantized matrix, or None if it uses none."""
        if node.op != "call_function":
            return None
        target: Any = node.target
        if target is torch.ops.aten.embedding.default:
            given = arguments(node)
            if not is_dequantized(given["weight"]):
                return None
            return self._embedding(node, given["indices"], given["weight"])
        if target is torch.ops.wgpu_q4.embedding_q4gsw.default:
            return self._own_embedding(node)
        if target is torch.ops.wgpu_q4.linear_q4gsw.default:
            return self._own_linear(node)
        if _is_embedding_4bit(target):
            return self._embedding(node, arguments(node)["indices"], None)
        return self._linear(node)

    def _embedding(self, node: Node, indices: Node, unpacked: Node | None) -> Use:
        shape = None if unpacked is None else _shape(unpacked)
        try:
            if unpacked is None:
                operand = self._operands.embedding_4bit(node)
            else:
                operand = self._operands.dequantized(unpacked)
        except Unsupported as error:
            return Use(node, "embedding", None, str(error), shape, indices)
        return Use(node, "embedding", operand, "", operand.shape, indices)

    def _own_embedding(self, node: Node) -> Use:
        given = arguments(node)
        indices = given["indices"]
        packing: Packing = "linear" if given["is_linear_weight"] else "embedding"
        try:
            operand = self._operands.packed(given["weight"], given["weight_scales"], packing)
        except Unsupported as error:
            shape = _packed_shape(given["weight"])
            return Use(node, "embedding", None, str(error), shape, indices)
        return Use(node, "embedding", operand, "", operand.shape, indices)

    def _own_linear(self, node: Node) -> Use:
        given = arguments(node)
        x, bias, weights = given["self"], given["bias"], given["weights"]
        try:
            operand = self._operands.packed(
                weights, given["weight_scales"], "linear", scales_transposed=True
            )
            _check_activations(x)
        except Unsupported as error:
            return Use(node, "linear", None, str(error), _packed_shape(weights), None, x, bias)
        return Use(node, "linear", operand, "", operand.shape, None, x, bias)

    def _linear(self, node: Node) -> Use | None:
        bias = None
        if node.target is torch.ops.aten.linear.default:
            given = arguments(node)
            x, weight, bias = given["input"], given["weight"], given["bias"]
        elif node.target is torch.ops.aten.mm.default:
            x, weight = node.args[0], _untransposed(node.args[1])
        elif node.target is torch.ops.aten.addmm.default and not node.kwargs:
            bias, x, weight = node.args[0], node.args[1], _untransposed(node.args[2])
        else:
            return None
        if not is_dequantized(weight):
            return None
        rows = quantized_rows(x)
        try:
            operand = self._operands.dequantized(weight)
            _check_activations(x)
            if rows is None and is_dequantized(x):
                raise Unsupported("its activations are quantized, but not to 8 bits row by row")
        except Unsupported as error:
            return Use(node, "linear", None, str(error), _shape(weight), None, x, bias)
        return Use(node, "linear", operand, "", operand.shape, None, x, bias, rows)


def _is_embedding_4bit(target: Any) -> bool:
    """Return whether ``target`` is ExecuTorch's op, which may not be registered."""
    if getattr(target, "namespace", "") != "quantized_decomposed":
        return False
    return bool(target._schema.name.partition("::")[2] == "embedding_4bit")


def _check_activations(x: Node) -> None:
    dtype = x.meta["val"].dtype
    if dtype not in FLOATS:
        raise Unsupported(
            f"its activations are {dtype}, not float32 or bfloat16. Export in float32, and lower "
            f"with the compile option force_fp16 to run in float16"
        )


def _untransposed(value: object) -> Any:
    """Return the argument of a 2-D transpose; None if ``value`` is no transpose."""
    if not isinstance(value, Node) or value.target not in _TRANSPOSES:
        return None
    if value.target is torch.ops.aten.transpose.int:
        turned = {int(axis) % 2 for axis in value.args[1:]} == {0, 1}  # type: ignore[arg-type]
    elif len(value.args) > 1:
        turned = list(value.args[1]) in ([1, 0], [-1, -2])  # type: ignore[arg-type]
    else:
        turned = True
    return value.args[0] if turned else None


def _shape(node: Node) -> tuple[int, int] | None:
    shape = node.meta["val"].shape
    return (int(shape[0]), int(shape[1])) if len(shape) == 2 else None


def _packed_shape(node: Node) -> tuple[int, int] | None:
    shape = _shape(node)
    return None if shape is None else (shape[0], shape[1] * 2)
