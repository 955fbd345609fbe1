"""Who reads a 4-bit matrix in a program: embeddings that look rows up, linears that multiply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.export import ExportedProgram
from torch.fx import Node

import wgpu_q4.torch_ops  # noqa: F401  registers the ops that are looked for
from wgpu_q4.executorch.constants import arguments
from wgpu_q4.executorch.operands import (
    Operand,
    Unsupported,
    dequantized,
    embedding_4bit,
    is_dequantized,
    packed,
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
    """A node that reads a matrix.

    Attributes:
        node: what is to be replaced.
        kind: embedding or linear.
        operand: the matrix; None if it is one that cannot be shared.
        reason: why not, then.
        shape: ``(V, K)`` of the matrix as far as it is known.
        indices: the ids of an embedding.
        x: the activations of a linear.
        bias: the bias of a linear, or None.
        quantized_activations: whether the linear's x went through int8.
    """

    node: Node
    kind: Kind
    operand: Operand | None
    reason: str = ""
    shape: tuple[int, int] | None = None
    indices: Node | None = None
    x: Node | None = None
    bias: Node | None = None
    quantized_activations: bool = False


def find_uses(program: ExportedProgram) -> list[Use]:
    """Every embedding and linear of a quantized matrix, in the order of the graph."""
    found = (use_of(program, node) for node in program.graph.nodes)
    return [use for use in found if use is not None]


def use_of(program: ExportedProgram, node: Node) -> Use | None:
    """The use that ``node`` makes of a quantized matrix, None if it is no such op."""
    if node.op != "call_function":
        return None
    target: Any = node.target
    if target is torch.ops.aten.embedding.default:
        given = arguments(node)
        if is_dequantized(given["weight"]):
            return _embedding(program, node, given["indices"], given["weight"])
        return None
    namespace = getattr(target, "namespace", "")
    name = target._schema.name.partition("::")[2] if hasattr(target, "_schema") else ""
    if namespace == "quantized_decomposed" and name == "embedding_4bit":
        return _embedding(program, node, arguments(node)["indices"], None)
    if target is torch.ops.wgpu_q4.embedding_q4gsw.default:
        return _own_embedding(program, node)
    if target is torch.ops.wgpu_q4.linear_q4gsw.default:
        return _own_linear(program, node)
    return _linear(program, node)


def _embedding(program: ExportedProgram, node: Node, indices: Node, unpacked: Node | None) -> Use:
    shape = None if unpacked is None else _shape(unpacked)
    try:
        operand = (
            embedding_4bit(program, node) if unpacked is None else dequantized(program, unpacked)
        )
    except Unsupported as error:
        return Use(node, "embedding", None, str(error), shape, indices)
    return Use(node, "embedding", operand, "", operand.shape, indices)


def _own_embedding(program: ExportedProgram, node: Node) -> Use:
    given = arguments(node)
    form: Literal["linear", "embedding"] = "linear" if given["is_linear_weight"] else "embedding"
    try:
        operand = packed(program, given["weight"], given["weight_scales"], form, False)
    except Unsupported as error:
        shape = _packed_shape(given["weight"])
        return Use(node, "embedding", None, str(error), shape, given["indices"])
    return Use(node, "embedding", operand, "", operand.shape, given["indices"])


def _own_linear(program: ExportedProgram, node: Node) -> Use:
    given = arguments(node)
    x, bias = given["self"], given["bias"]
    try:
        operand = packed(program, given["weights"], given["weight_scales"], "linear", True)
        _check_activations(x)
    except Unsupported as error:
        return Use(node, "linear", None, str(error), _packed_shape(given["weights"]), None, x, bias)
    return Use(node, "linear", operand, "", operand.shape, None, x, bias)


def _linear(program: ExportedProgram, node: Node) -> Use | None:
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
    quantized = is_dequantized(x)
    try:
        operand = dequantized(program, weight)
        _check_activations(x)
    except Unsupported as error:
        return Use(node, "linear", None, str(error), _shape(weight), None, x, bias)
    return Use(node, "linear", operand, "", operand.shape, None, x, bias, quantized)


def _check_activations(x: Node) -> None:
    dtype = x.meta["val"].dtype
    if dtype != torch.float32:
        raise Unsupported(
            f"its activations are {dtype}: ExecuTorch's reference op takes float32 only. Export in "
            f"float32, and lower with the compile option force_fp16 to run in float16"
        )


def _untransposed(value: object) -> Any:
    """What a 2-D transpose was taken of; None if ``value`` is no transpose."""
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
