"""What the package takes for an array and for a dtype, of torch's and pandas' kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import wgpu_q4
from wgpu_q4.arrays import float_dtype, is_torch, like, like_floats, to_numpy
from wgpu_q4.nn import QuantizedLinear
from wgpu_q4.ops.arguments import check_floats

ARRAY = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)


def test_arrays_of_pandas() -> None:
    ids = pandas.Series([3, 1, 2])
    assert to_numpy(ids, "ids").tolist() == [3, 1, 2]
    assert to_numpy(pandas.Series([3, 1], dtype="Int64"), "ids").dtype == np.int64
    assert like(ARRAY, ids) is ARRAY
    frame = pandas.DataFrame(ARRAY)
    assert wgpu_q4.quantize(frame).same_matrix(wgpu_q4.quantize(ARRAY))
    assert like_floats(ARRAY, frame) is ARRAY
    assert like_floats(ARRAY, pandas.Series([1.0], dtype="Float32")).dtype == np.float32
    with pytest.raises(TypeError, match=r"ids, a Series, holds no numbers .*gave objects"):
        to_numpy(pandas.Series(["a"]), "ids")


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


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e8m0fnu]
)
def test_8_bit_floats_are_read_exactly(dtype: torch.dtype) -> None:
    tensor = torch.arange(256, dtype=torch.uint8).view(dtype)
    tensor = tensor[tensor.double().isfinite()]
    np.testing.assert_array_equal(to_numpy(tensor, "x"), tensor.double().numpy())
    matrix = torch.from_numpy(ARRAY).to(dtype)
    expected = wgpu_q4.quantize(matrix.double().numpy())
    assert wgpu_q4.quantize(matrix).same_matrix(expected)
    with pytest.raises(TypeError, match=r"x must be float32, .* convert with \.float\(\)"):
        check_floats(matrix, "x")


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


# Tensors without values of their own: one guard


class Plain(torch.Tensor):
    """A subclass that holds what a tensor holds."""


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(2, 32)


def nested() -> torch.Tensor:
    parts = [torch.zeros(2), torch.zeros(3)]
    made: torch.Tensor = torch.nested.nested_tensor(parts, layout=torch.jagged)
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(2, 32, device="meta"), "on torch's meta device.*load the model"),
        (
            lambda: torch.eye(32).to_sparse(),
            r"a tensor of layout sparse_coo: .* \.to_dense\(\)",
        ),
        (
            lambda: torch.eye(32).to_mkldnn(),
            r"a tensor of layout _mkldnn: .* \.to_dense\(\)",
        ),
        (fake, "a FakeTensor, which stands for a tensor while a program is traced: trace the"),
        (nested, r"a nested tensor: pad it with \.to_padded_tensor"),
        (
            lambda: torch.quantize_per_tensor(torch.zeros(2, 32), 1.0, 0, torch.qint8),
            r"quantized, of torch\.qint8: convert it with \.dequantize\(\)",
        ),
        (
            lambda: torch.zeros(2, 32, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
            "a tensor of torch.float4_e2m1fn_x2: convert it to a dtype that numpy has",
        ),
    ],
)
def test_unusual_tensors_are_refused_by_name_with_a_remedy(make: Any, message: str) -> None:
    tensor = make()
    with pytest.raises(TypeError, match=f"^weight is {message}"):
        wgpu_q4.quantize(tensor)
    with pytest.raises(TypeError, match=f"^x is {message}"):
        wgpu_q4.linear(tensor, wgpu_q4.quantize(ARRAY))


@pytest.mark.parametrize("transform", [torch.vmap, torch.func.grad])
def test_tensors_inside_of_torch_func(transform: Any) -> None:
    with pytest.raises(TypeError, match=r"^x is inside of torch\.func .*call this outside of it"):
        transform(lambda row: to_numpy(row, "x"))(torch.zeros(2, 32))


@pytest.mark.parametrize("transform", [torch.vmap, torch.func.grad, torch.func.jacrev])
def test_modules_inside_of_torch_func(transform: Any) -> None:
    head = QuantizedLinear(wgpu_q4.quantize(ARRAY))
    with pytest.raises(TypeError, match=r"^x is inside of torch\.func .*torch\.autograd\.grad"):
        transform(lambda row: head(row).sum())(torch.zeros(2, 32))


def test_signs_that_are_not_applied_yet() -> None:
    tensor = torch.complex(torch.zeros(2, 32), torch.from_numpy(ARRAY)).conj().imag
    assert tensor.is_neg()
    np.testing.assert_array_equal(to_numpy(tensor, "x"), -ARRAY)


def test_a_subclass_with_memory_of_its_own_is_read() -> None:
    np.testing.assert_array_equal(to_numpy(torch.ones(2).as_subclass(Plain), "x"), np.ones(2))
