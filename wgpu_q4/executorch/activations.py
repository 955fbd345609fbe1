"""Activations that a program quantizes to 8 bits and back, row by row, before a linear.

That is how torchao writes a linear with dynamically quantized activations:

    scale, zero_point = choose_qparams_affine(x, blocks [1, …, 1, K])
    x = dequantize_affine(quantize_affine(x, scale, zero_point), scale, zero_point)

ExecuTorch's Vulkan backend fuses these ops and the linear into ``et_vk.linear_dq8ca_q4gsw``.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from wgpu_q4.executorch.constants import arguments
from wgpu_q4.executorch.emit import Emitter
from wgpu_q4.executorch.operands import is_dequantized

_TORCHAO = torch.ops.torchao
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten.reshape.default)


@dataclass(frozen=True)
class QuantizedRows:
    """The ops that quantize each row of ``x`` and dequantize it again.

    Attributes:
        x: the activations before, ``[..., K]``.
        choose: the op that chooses a scale and a zero point for each row.
        quantize: the op that quantizes.
        dequantize: the op that dequantizes.
    """

    x: Node
    choose: Node
    quantize: Node
    dequantize: Node


def quantized_rows(value: Node) -> QuantizedRows | None:
    """Return the ops that quantized ``value`` row by row; None if there are none.

    A view between them and the linear is looked through.
    """
    dequantize: Any = value
    while isinstance(dequantize, Node) and dequantize.target in _VIEWS:
        dequantize = dequantize.args[0]
    if not is_dequantized(dequantize):
        return None
    quantize = dequantize.args[0]
    if getattr(quantize, "target", None) is not _TORCHAO.quantize_affine.default:
        return None
    x, blocks, scale, zero_point = quantize.args[:4]
    choose = _item(scale, 0)
    if (
        choose is None
        or choose is not _item(zero_point, 1)
        or choose.args[0] is not x
        or list(dequantize.args[1:4]) != [blocks, scale, zero_point]
        or list(blocks) != list(choose.args[2])
        or not _is_row(blocks, x)
    ):
        return None
    return QuantizedRows(x, choose, quantize, dequantize)


def write_quantized_rows(emit: Emitter, rows: QuantizedRows, matrix: Node) -> Node:
    """Write the same quantization for x folded into a float32 matrix ``[n, K]``."""
    blocks = [1, int(matrix.meta["val"].shape[1])]
    given = {**arguments(rows.choose), "input": matrix, "block_size": blocks, "scale_dtype": None}
    chosen = emit.call(rows.choose.target, *given.values())
    row_scales = {
        "block_size": blocks,
        "scale": emit.call(operator.getitem, chosen, 0),
        "zero_point": emit.call(operator.getitem, chosen, 1),
    }
    given = {**arguments(rows.quantize), "input": matrix, **row_scales}
    values = emit.call(rows.quantize.target, *given.values())
    given = {**arguments(rows.dequantize), "input": values, **row_scales}
    given["output_dtype"] = torch.float32
    return emit.call(rows.dequantize.target, *given.values())


def _item(value: Any, index: int) -> Any:
    """Return the choose_qparams_affine whose result number ``index`` a node is; else None."""
    if not isinstance(value, Node) or value.target is not operator.getitem:
        return None
    choose, item = value.args
    if item != index or not isinstance(choose, Node):
        return None
    return choose if choose.target is _TORCHAO.choose_qparams_affine.default else None


def _is_row(blocks: Any, x: Node) -> bool:
    shape = x.meta["val"].shape
    return list(blocks) == [*[1] * (len(shape) - 1), shape[-1]]
