"""ONNX graphs of one 4-bit operator of ONNX Runtime, on the bytes of a `Q4Weight`.

A uint8 weight without a zero point (it is then 8) has the bytes and scales of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from wgpu_q4 import Q4Weight
from wgpu_q4.errors import FormatError

Arrays = Mapping[str, NDArray[Any]]


def embedding_graph(weight: Q4Weight, ids_dtype: str = "int64") -> bytes:
    """Return ``GatherBlockQuantized``: input ``indices``, output ``out`` in the scales' dtype."""
    return one_operator(
        "GatherBlockQuantized",
        ["data", "indices", "scales"],
        {"indices": np.dtype(ids_dtype)},
        {"data": weight.packed_as("linear"), "scales": weight.scales},
        weight.scales.dtype,
        bits=4,
        block_size=_block_size(weight),
        gather_axis=0,
        quantize_axis=1,
    )


def linear_graph(weight: Q4Weight, dtype: str = "float32", accuracy_level: int = 1) -> bytes:
    """Return ``MatMulNBits``: input ``A`` ``[M, K]`` of ``dtype``, output ``out`` ``[M, V]``.

    Args:
        accuracy_level: 1 computes in float32, 4 with activations in int8; 0 lets it choose.
    """
    vocab, embed_dim = weight.shape
    groups = weight.scales.shape[1]
    return one_operator(
        "MatMulNBits",
        ["A", "B", "scales"],
        {"A": np.dtype(dtype)},
        {
            "B": weight.packed_as("linear").reshape(vocab, groups, -1),
            "scales": weight.scales.astype(dtype, copy=False),
        },
        np.dtype(dtype),
        K=embed_dim,
        N=vocab,
        bits=4,
        block_size=_block_size(weight),
        accuracy_level=accuracy_level,
    )


def one_operator(
    operator: str,
    order: list[str],
    inputs: Mapping[str, np.dtype[Any]],
    constants: Arrays,
    result: np.dtype[Any],
    **attributes: Any,
) -> bytes:
    """Return a serialized model of one operator of the domain com.microsoft.

    Args:
        order: the names of the operator's inputs, in its order.
        inputs: the dtype of each that is given at run time.
        constants: the others.
        result: dtype of the output ``out``.
    """
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [helper.make_node(operator, order, ["out"], domain="com.microsoft", **attributes)],
        operator,
        [helper.make_tensor_value_info(name, kind(d), None) for name, d in inputs.items()],
        [helper.make_tensor_value_info("out", kind(result), None)],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return bytes(model.SerializeToString())


def _block_size(weight: Q4Weight) -> int:
    size = weight.group_size
    if size < 16 or size & (size - 1):
        raise FormatError(f"ONNX Runtime has groups of 16, 32, 64 and so on, not of {size}")
    return size
