"""`Q4Weight` made of torch tensors: it shares their memory, and refuses what is not q4gsw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from wgpu_q4.errors import FormatError
from wgpu_q4.weight import Q4Weight

# One row of 16 values, two groups of 8.
PACKED = np.array([[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]], np.uint8)
SCALES = np.array([[0.5, -2]], np.float16)


def random_floats() -> Any:
    return np.random.default_rng(0).standard_normal((13, 96)).astype(np.float32)


def test_wrapping_tensors_copies_nothing() -> None:
    packed, scales = torch.from_numpy(PACKED.copy()), torch.from_numpy(SCALES.copy())
    weight = Q4Weight(packed, scales, "linear")
    assert weight.packed.ctypes.data == packed.data_ptr()
    assert weight.scales.ctypes.data == scales.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_quantize_takes_tensors(dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(random_floats()).to(dtype)
    expected = Q4Weight.quantize(tensor.double().numpy())
    assert Q4Weight.quantize(tensor).same_matrix(expected)
    assert Q4Weight.quantize(torch.nn.Parameter(tensor)).same_matrix(expected)
    assert Q4Weight.quantize(tensor.T.contiguous().T).same_matrix(expected)


@pytest.mark.parametrize("tensor", [torch.ones(2, 32, dtype=torch.int32), torch.ones(2, 32) > 0])
def test_tensors_of_integers_are_not_quantized(tensor: torch.Tensor) -> None:
    with pytest.raises(TypeError, match="float16, float32 or float64 array, not"):
        Q4Weight.quantize(tensor)


def test_tensors_that_are_not_q4gsw() -> None:
    with pytest.raises(FormatError, match="not int64"):
        Q4Weight(torch.from_numpy(PACKED), torch.ones(1, 2, dtype=torch.int64))
