"""ONNX Runtime's 4-bit matrices, against the ops of ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wgpu_q4.errors import FormatError
from wgpu_q4.foreign import from_onnxruntime

V, K, G = 24, 96, 32
RNG = np.random.default_rng(0)
DATA = RNG.integers(0, 256, (V, K // 2), np.uint8)
SCALES = RNG.uniform(0.1, 1, (V, K // G)).astype(np.float32)


def run(op: str, inputs: dict[str, NDArray[Any]], feed: NDArray[Any], **attributes: Any) -> Any:
    """Return what one node of ONNX Runtime's gives, with ``inputs`` as initializers."""
    kind = TensorProto.FLOAT if feed.dtype == np.float32 else TensorProto.INT64
    names = list(inputs)
    names.insert(0 if op == "MatMulNBits" else 1, "feed")
    node: Any = helper.make_node(op, names, ["out"], domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("feed", kind, feed.shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in inputs.items()],
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"feed": feed})[0]


def rows(data: NDArray[Any], *zero_points: NDArray[Any]) -> Any:
    """Return the matrix by ``GatherBlockQuantized``."""
    inputs = {"data": data, "scales": SCALES}
    inputs.update(zip(["zero_points"], zero_points, strict=False))
    bits = {"bits": 4} if data.dtype == np.uint8 else {}
    feed = np.arange(V, dtype=np.int64)
    return run(
        "GatherBlockQuantized", inputs, feed, block_size=G, quantize_axis=1, gather_axis=0, **bits
    )


def test_gather_block_quantized() -> None:
    weight = from_onnxruntime(DATA, SCALES, group_size=G)
    np.testing.assert_array_equal(weight.dequantize(), rows(DATA))
    assert np.shares_memory(weight.packed, DATA)


def test_matmul_n_bits() -> None:
    blocks, scales = DATA.reshape(V, K // G, G // 2), SCALES.reshape(-1)
    weight = from_onnxruntime(blocks, scales, group_size=G)
    x = RNG.integers(-4, 5, (5, K)).astype(np.float32)
    found = run("MatMulNBits", {"B": blocks, "scales": scales}, x, N=V, K=K, bits=4, block_size=G)
    np.testing.assert_allclose(found, x @ weight.dequantize().T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("zero", [7, 8])
def test_zero_points_two_a_byte(zero: int) -> None:
    points = np.full((V, 2), zero * 17, np.uint8)
    weight = from_onnxruntime(DATA, SCALES, points, group_size=G)
    np.testing.assert_array_equal(weight.dequantize(), rows(DATA, points))


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_onnx_types_of_four_bits(dtype: str) -> None:
    signed = dtype == "int4"
    values = RNG.integers(-8 if signed else 0, 8, (V, K))
    data = values.astype(getattr(ml_dtypes, dtype))
    weight = from_onnxruntime(data, SCALES, group_size=G)
    np.testing.assert_array_equal(weight.dequantize(), rows(data))
    points = np.full((V, K // G), -1 if signed else 2).astype(data.dtype)
    if signed:
        points = np.zeros((V, K // G)).astype(data.dtype)
    weight = from_onnxruntime(data, SCALES, points, group_size=G)
    np.testing.assert_array_equal(weight.dequantize(), rows(data, points))


def test_what_does_not_fit() -> None:
    with pytest.raises(FormatError, match=r"of its 72 groups hold values beyond −8…7"):
        from_onnxruntime(DATA, SCALES, np.zeros((V, 2), np.uint8), group_size=G)
    with pytest.raises(FormatError, match=r"in groups of 16 it does not go with scales of shape"):
        from_onnxruntime(DATA, SCALES, group_size=16)
    with pytest.raises(FormatError, match=r"data must be uint8, uint4 or int4 .*, not int8"):
        from_onnxruntime(DATA.view(np.int8), SCALES, group_size=G)
    with pytest.raises(FormatError, match=r"zero_points must be uint8 \[24, 2\], two a byte, or"):
        from_onnxruntime(DATA, SCALES, np.zeros((V, 3), np.uint8), group_size=G)
    half = np.full((V, K // G), 7.5, np.float32)
    with pytest.raises(FormatError, match=r"zero points, which are from 7\.5 to 7\.5"):
        from_onnxruntime(DATA, SCALES, half, group_size=G)
