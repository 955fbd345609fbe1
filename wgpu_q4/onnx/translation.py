"""The custom ops of this package in the operators of ONNX Runtime, for `torch.onnx.export`.

Both operators read the packed bytes in one shape, ``[V, K/G, G/2]``: ``GatherBlockQuantized`` then
gives the groups of a row apart, and a Reshape of the result joins them.  The scales are stored once
too.  ``MatMulNBits`` takes them as ``[V, K/G]``, the other operator as ``[V, K/G, 1]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18 as standard

import wgpu_q4.torch_ops  # noqa: F401  registers the ops
from wgpu_q4.errors import FormatError
from wgpu_q4.kernels import Accuracy
from wgpu_q4.onnx.operators import (
    FLOAT16,
    FLOAT32,
    INT32,
    INT64,
    check_group_size,
    gather_block_quantized,
    matmul_nbits,
)

_OPS = torch.ops.wgpu_q4

_ACCURACY_LEVELS: dict[Accuracy, int] = {"exact": 1, "fast": 2, "int8": 4}
"""What ONNX Runtime calls float32, float16 and int8 activations."""


def custom_translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what `torch.onnx.export` takes as ``custom_translation_table``.

    `wgpu_q4.onnx.export` passes it on and arranges what is stored; use the table alone to add
    translations of your own.
    """
    return {
        _OPS.embedding_q4gsw.default: _embedding,
        _OPS.embedding_q4gsw_on.default: _embedding_on,
        _OPS.linear_q4gsw.default: _linear,
        _OPS.linear_q4gsw_on.default: _linear_on,
    }


def _embedding(
    weight: Any, weight_scales: Any, group_size: int, indices: Any, is_linear_weight: bool = False
) -> Any:
    """``GatherBlockQuantized``: rows ``indices.shape + (K,)``, float32."""
    if not is_linear_weight:
        raise FormatError(
            "ONNX Runtime reads packed bytes in the linear convention; pass "
            'Q4Weight.packed_as("linear") and is_linear_weight=True'
        )
    blocks = _blocks(weight, group_size)
    groups, embed_dim = blocks.shape[1], weight.shape[1] * 2
    ids: Any = indices if indices.dtype in (INT32, INT64) else standard.Cast(indices, to=INT64)
    by_group = _reshaped(_cast(weight_scales, FLOAT32), [weight.shape[0], groups, 1])
    rows = gather_block_quantized(
        blocks, ids, by_group, bits=4, block_size=group_size, gather_axis=0, quantize_axis=2
    )
    shape = standard.Concat(standard.Shape(ids), _integers([embed_dim]), axis=0)
    return standard.Reshape(rows, shape)


def _embedding_on(
    weight: Any, weight_scales: Any, group_size: int, indices: Any, device: str
) -> Any:
    return _embedding(weight, weight_scales, group_size, indices, True)


def _linear(x: Any, weights: Any, weight_scales: Any, group_size: int, bias: Any = None) -> Any:
    return _linear_on(x, weights, weight_scales, group_size, bias, "exact", "")


def _linear_on(
    x: Any,
    weights: Any,
    weight_scales: Any,
    group_size: int,
    bias: Any,
    accuracy: Accuracy,
    device: str,
) -> Any:
    """``MatMulNBits``: ``[..., V]`` in the dtype of x."""
    blocks = _blocks(weights, group_size)
    scales = _untransposed(weight_scales)
    # The operator has one type for x, scales and bias.  float32 scales may not fit float16.
    half = x.dtype == scales.dtype == FLOAT16
    dtype = FLOAT16 if half else FLOAT32
    result = matmul_nbits(
        _cast(x, dtype),
        blocks,
        _cast(scales, dtype),
        None,
        None,
        None if bias is None else _cast(bias, dtype),
        K=weights.shape[1] * 2,
        N=weights.shape[0],
        accuracy_level=_ACCURACY_LEVELS[accuracy],
        bits=4,
        block_size=group_size,
    )
    return _cast(result, x.dtype, since=dtype)


def _blocks(packed: Any, group_size: int) -> Any:
    """Return packed bytes ``[V, K/2]`` as ``[V, K/G, G/2]``: one value however often it is read."""
    check_group_size(group_size)
    shape = [packed.shape[0], packed.shape[1] * 2 // group_size, group_size // 2]
    for user in packed.consumers():
        if user.op_type == "Reshape" and list(user.outputs[0].shape or ()) == shape:
            return user.outputs[0]
    return _reshaped(packed, shape)


def _untransposed(scales: Any) -> Any:
    """Return scales ``[V, K/G]`` for those that an op takes as ``[K/G, V]``."""
    maker = scales.producer()
    if maker is not None and maker.op_type == "Transpose":
        return maker.inputs[0]
    return standard.Transpose(scales, perm=[1, 0])


def _reshaped(given: Any, shape: list[int]) -> Any:
    made = standard.Reshape(given, _integers(shape))
    made.shape = ir.Shape(shape)
    return made


def _integers(values: list[int]) -> Any:
    return standard.Constant(value_ints=values)


def _cast(given: Any, dtype: int, since: int | None = None) -> Any:
    """Return ``given`` in ``dtype``.

    Args:
        since: the dtype of ``given``, where the graph does not say it yet.
    """
    return given if (since or given.dtype) == dtype else standard.Cast(given, to=dtype)
