"""What the package takes for an array and for a dtype, of torch's kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import wgpu_q4
from wgpu_q4.arrays import float_dtype, is_torch, like, like_floats, to_numpy

ARRAY = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)


def test_memory_is_shared_both_ways() -> None:
    tensor = torch.from_numpy(ARRAY)
    assert np.shares_memory(to_numpy(tensor, "x"), ARRAY)
    assert like(ARRAY, tensor).data_ptr() == ARRAY.ctypes.data
    assert is_torch(tensor)
    assert not is_torch(ARRAY)


def test_bfloat16_is_read_exactly() -> None:
    tensor = torch.arange(0, 1 << 16).to(torch.uint16).view(torch.bfloat16)
    tensor = tensor[tensor.isfinite()]
    result = to_numpy(tensor, "x")
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, tensor.double().numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_come_back_in_the_dtype_of_their_source(dtype: torch.dtype) -> None:
    result = like_floats(ARRAY, torch.zeros(1, dtype=dtype))
    assert torch.equal(result, torch.from_numpy(ARRAY).to(dtype))


@pytest.mark.parametrize("half", [torch.float16, torch.half, "torch.float16"], ids=repr)
def test_whatever_torch_calls_float16(half: Any) -> None:
    assert float_dtype("dtype", half) == "float16"
    assert wgpu_q4.quantize(ARRAY, scales_dtype=half).scales.dtype == np.float16


@pytest.mark.parametrize("other", [torch.bfloat16, torch.int32, torch.float64])
def test_other_dtypes_are_refused_by_their_name(other: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"dtype must be one of float32, float16, not {other}"):
        float_dtype("dtype", other)


def test_torch_sees_the_dequantized_matrix_of_a_weight() -> None:
    weight = wgpu_q4.quantize(ARRAY, 8)
    assert torch.equal(torch.asarray(np.asarray(weight)), torch.from_numpy(weight.dequantize()))


def test_a_list_of_tensors_is_no_array() -> None:
    with pytest.raises(TypeError, match="x is no rectangle of numbers"):
        to_numpy([torch.zeros(2, requires_grad=True)], "x")
