"""Which form a node of an exported program has, as the table in `forms` names it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  registers et_vk
import torch
from torch.fx import Node

HALF_SCALES = ", float16 scales beside float32 activations"
APART = "multiply, dynamic sizes that are known apart"

_ATEN, _ET_VK, _TORCHAO = torch.ops.aten, torch.ops.et_vk, torch.ops.torchao


def form_of(node: Node) -> str:
    """Return the name of the form of a node; of an op that is not known here, the op's name."""
    recognize = _RECOGNIZERS.get(node.target)
    return str(node.target) if recognize is None else recognize(node)


def _embedding(node: Node) -> str:
    scales, indices = _value(node.args[1]), node.args[3]
    if scales.dtype != torch.float32:
        return "embedding_q4gsw" + HALF_SCALES
    assert isinstance(indices, Node)
    if any(size != 1 for size in _value(indices).shape[:-1]):
        return "embedding_q4gsw, several rows of ids"
    return "embedding_q4gsw"


def _linear(node: Node) -> str:
    x, scales = _value(node.args[0]), _value(node.args[2])
    if x.ndim != 2:
        return "linear_q4gsw, x of more than two dimensions"
    if scales.dtype != torch.float32:
        return "linear_q4gsw" + HALF_SCALES
    quantized = getattr(node.args[0], "target", None) is _TORCHAO.dequantize_affine.default
    return "linear_dq8ca_q4gsw" if quantized else "linear_q4gsw"


def _index(node: Node) -> str:
    return "index.Tensor of a matrix" if _value(node.args[0]).ndim > 1 else "index.Tensor"


def _add(node: Node) -> str:
    return "add" if _value(node).dtype.is_floating_point else "add of integers"


def _multiply(node: Node) -> str:
    """Tell apart products whose operands the WebGPU runtime resizes at different times.

    That runtime resizes what depends on a dynamic input pass by pass, one op further each time.  A
    product of two operands fails unless they are resized in the same pass or in two that follow
    each other.
    """
    operands = [operand for operand in node.all_input_nodes if dynamic_sizes(operand)]
    passes = [_resized_in(operand) for operand in operands]
    if len(passes) < 2:
        return "multiply"
    first, second = passes[:2]
    if first is None or second is None or abs(first - second) > 1:
        return APART
    return "multiply"


def _resized_in(node: Node) -> int | None:
    """Return in which pass the WebGPU runtime resizes a result, or None if that is not known.

    An input of the program, and a slice to a size of such an input, are resized before pass 0.
    """
    if node.op == "placeholder" or node.target is _ATEN.slice.Tensor:
        return -1
    place = _FOLLOWED.get(node.target)
    followed = None if place is None else node.args[place]
    before = _resized_in(followed) if isinstance(followed, Node) else None
    return None if before is None else before + 1


_FOLLOWED: dict[Any, int] = {
    _ET_VK.embedding_q4gsw.default: 3,
    _ATEN.view.default: 0,
    _ATEN.reshape.default: 0,
    _ATEN._to_copy.default: 0,
    _ATEN.mul.Tensor: 0,
}
"""Ops that the WebGPU runtime resizes, with the place of the argument whose size they follow."""


def _view(node: Node) -> str:
    return "view, two dynamic sizes" if dynamic_sizes(node) > 1 else "view"


def _choose_qparams(node: Node) -> str:
    rows: int | torch.SymInt = _value(node.args[0]).shape[0]
    if not isinstance(rows, int) or (rows > 4 and rows % 4 != 0):
        return "quantization of any number of rows"
    return "quantization of rows"


def _named(name: str) -> Callable[[Node], str]:
    return lambda node: name


_RECOGNIZERS: dict[Any, Callable[[Node], str]] = {
    _ET_VK.embedding_q4gsw.default: _embedding,
    _ET_VK.linear_q4gsw.default: _linear,
    _ATEN.index.Tensor: _index,
    _ATEN.add.Tensor: _add,
    _ATEN.view.default: _view,
    _ATEN.reshape.default: _view,
    _ATEN.index_select.default: _named("index_select"),
    _ATEN.expand.default: _named("expand"),
    _ATEN.repeat.default: _named("repeat"),
    _ATEN.gather.default: _named("gather"),
    _ATEN.permute.default: _named("permute"),
    _ATEN.slice.Tensor: _named("slice"),
    _ATEN._to_copy.default: _named("copy in another dtype"),
    _ATEN.mul.Tensor: _multiply,
    _ATEN.sym_size.int: _named("arithmetic of sizes"),
    operator.mul: _named("arithmetic of sizes"),
    operator.getitem: _named("quantization of rows"),
    _TORCHAO.choose_qparams_affine.default: _choose_qparams,
    _TORCHAO.quantize_affine.default: _named("quantization of rows"),
    _TORCHAO.dequantize_affine.default: _named("quantization of rows"),
}


def _value(node: object) -> torch.Tensor:
    assert isinstance(node, Node)
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor)
    return value


def dynamic_sizes(node: Node) -> int:
    """Return how many sizes of a node's tensor are not constants."""
    return sum(isinstance(size, torch.SymInt) for size in _value(node).shape)
