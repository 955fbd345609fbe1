"""compressed-tensors' packed matrices, written and decompressed by compressed-tensors itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from wgpu_q4.errors import FormatError
from wgpu_q4.foreign import from_compressed_tensors

V, K, G = 40, 128, 32


def compressed(
    symmetric: bool, dtype: torch.dtype = torch.float32, bits: int = 4, zero: int = 0
) -> tuple[dict[str, Any], torch.Tensor]:
    """Return the state of a compressed matrix, and the matrix that decompressing gives."""
    torch.manual_seed(0)
    weights = QuantizationArgs(
        num_bits=bits, type="int", strategy="group", group_size=G, symmetric=symmetric
    )
    scheme = QuantizationScheme(targets=["Embedding"], weights=weights)
    state = {
        "weight": torch.randn(V, K, dtype=dtype),
        "weight_scale": (torch.rand(V, K // G) / 4 + 0.1).to(dtype),
        "weight_zero_point": torch.full((V, K // G), zero, dtype=torch.int8),
    }
    made: Any = PackedQuantizationCompressor.compress(state, scheme)
    made["weight_packed"] = made["weight_packed"].clone(memory_format=torch.contiguous_format)
    whole: Any = PackedQuantizationCompressor.decompress(made, scheme)
    return made, whole["weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_symmetric_matrices_are_held(dtype: torch.dtype) -> None:
    state, expected = compressed(True, dtype)
    weight = from_compressed_tensors(**state)
    assert torch.equal(torch.from_numpy(weight.dequantize()).to(dtype), expected)
    assert weight.packed.ctypes.data == state["weight_packed"].data_ptr()
    assert weight.scales.dtype == ("float32" if dtype == torch.float32 else "float16")


def test_zero_points_are_read() -> None:
    state, _ = compressed(False, zero=3)
    with pytest.raises(FormatError, match=r"87 of its 160 groups .* from 11 to 11"):
        from_compressed_tensors(**state)
    state, expected = compressed(False, zero=-1)
    assert torch.equal(torch.from_numpy(from_compressed_tensors(**state).dequantize()), expected)


def test_what_is_not_this_format() -> None:
    state, _ = compressed(True, bits=8)
    with pytest.raises(FormatError, match=r"weight_packed of 4 bits must have shape \[V, K/8\]"):
        from_compressed_tensors(**state)
    state, expected = compressed(True)
    order = torch.arange(K) // G
    for g_idx in (order, torch.full((K,), -1)):
        weight = from_compressed_tensors(**state, weight_g_idx=g_idx)
        np.testing.assert_array_equal(weight.dequantize(), expected.numpy())
    with pytest.raises(FormatError, match="128 of 128 columns are in another group"):
        from_compressed_tensors(**state, weight_g_idx=order.flip(0))
