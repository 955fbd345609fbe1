"""What the package takes for an array and for a dtype, of numpy's and Python's kinds."""

from __future__ import annotations

import re
from array import array as python_array
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import wgpu_q4
from wgpu_q4 import format
from wgpu_q4.arrays import float_dtype, like, like_floats, one_dtype, to_numpy
from wgpu_q4.ops.arguments import check_floats

MATRIX = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)


class HasDtype:
    """An object whose ``dtype`` numpy asks for, as ``jax.numpy.float16`` is."""

    dtype = np.dtype(np.float16)

    def __repr__(self) -> str:
        """Return a name that two processes share, since it becomes a test's."""
        return "HasDtype"


@pytest.mark.parametrize(
    "half", ["float16", "half", "f2", "e", np.float16, np.dtype("float16"), HasDtype()], ids=repr
)
def test_whatever_numpy_calls_float16(half: Any) -> None:
    assert float_dtype("dtype", half) == "float16"
    assert wgpu_q4.quantize(MATRIX, scales_dtype=half).scales.dtype == np.float16


@pytest.mark.parametrize("single", ["float32", "single", "f4", np.float32, np.dtype("float32")])
def test_whatever_numpy_calls_float32(single: Any) -> None:
    assert float_dtype("dtype", single) == "float32"
    assert wgpu_q4.quantize(MATRIX, scales_dtype=single).scales.dtype == np.float32


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ("float64", "'float64'"),
        ("float", "'float'"),  # numpy's is float64
        (float, "<class 'float'>"),
        (np.int32, "<class 'numpy.int32'>"),
        (np.dtype("float64"), "float64"),
        (np.dtype(np.float16).newbyteorder(), ">f2"),
        (ml_dtypes.bfloat16, "<class 'ml_dtypes.bfloat16'>"),
        ("bfloat16", "'bfloat16'"),
        (None, "None"),  # which numpy takes for float64
        (16, "16"),
        ("fp16", "'fp16'"),
        ([], "[]"),
    ],
)
def test_other_dtypes_are_refused_by_their_name(other: Any, shown: str) -> None:
    message = f"^dtype must be one of float32, float16, not {re.escape(shown)}$"
    with pytest.raises(ValueError, match=message):
        float_dtype("dtype", other)
    with pytest.raises(wgpu_q4.FormatError, match=r"^scales_dtype must be one of float32, float16"):
        format.quantize(MATRIX, scales_dtype=other)


def test_a_caller_may_allow_more_dtypes() -> None:
    more = ("bfloat16", "float64")
    assert one_dtype("dtype", ml_dtypes.bfloat16, more) == "bfloat16"
    assert one_dtype("dtype", "bfloat16", more) == "bfloat16"
    assert one_dtype("dtype", float, more) == "float64"


def test_a_numpy_array_is_taken_as_it_is() -> None:
    assert to_numpy(MATRIX, "x") is MATRIX
    subclass = MATRIX.view(np.matrix)
    assert type(to_numpy(subclass, "x")) is np.ndarray
    assert np.shares_memory(to_numpy(subclass, "x"), MATRIX)
    assert to_numpy(np.float16(2), "x").dtype == np.float16


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        (3, np.int64),
        ([1, 2], np.int64),
        (((1, 2), (3, 4)), np.int64),
        (True, np.bool_),
        (0.5, np.float32),
        ([[0.5, 1]], np.float32),
        ([np.float16(1), np.float16(2)], np.float16),
        ([MATRIX[0], MATRIX[1]], np.float32),
    ],
)
def test_pythons_numbers_become_arrays(numbers: Any, dtype: Any) -> None:
    array = to_numpy(numbers, "x")
    np.testing.assert_array_equal(array, np.asarray(numbers))
    assert array.dtype == dtype
    assert like(array, numbers) is array
    assert like_floats(array.astype(np.float32), numbers).dtype == np.float32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "ids must be a numpy array, a torch tensor, a list of numbers, .*, not NoneType"),
        ("12", "ids must be a numpy array, .* __array__ or __dlpack__, not str"),
        (b"12", "ids must be a numpy array, .* __array__ or __dlpack__, not bytes"),
        ({1, 2}, "ids must be a numpy array, .* __array__ or __dlpack__, not set"),
        ([1, [2, 3]], "ids is no rectangle of numbers: "),
        (["1"], "ids must hold integers or floats, not <U1"),
        ([None], "ids must hold integers or floats, not object"),
        ([2**70], "ids must hold integers or floats, not object"),
        (np.ma.masked_equal([1, 2], 2), r"ids is a masked array: fill it .*ids\.filled\(value\)"),
    ],
)
def test_what_is_no_array(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        to_numpy(value, "ids")


# Other libraries' arrays


class OnTheHost:
    """An array that is shared by DLPack and in no other way."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class OnAGpu(OnTheHost):
    """CuPy's manners: `__array__` refuses, and DLPack copies to the host if it is asked to."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.\nUse get().")

    def __dlpack__(self, *, dl_device: Any = None, **options: Any) -> Any:
        if dl_device is None:
            raise BufferError("the array is on a GPU")
        return super().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class OutOfReach(OnAGpu):
    """An array that numpy does not get in any way."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the array is on a GPU")


def test_arrays_with_dlpack_alone() -> None:
    shared = to_numpy(OnTheHost(MATRIX), "x")
    assert np.shares_memory(shared, MATRIX)
    np.testing.assert_array_equal(shared, MATRIX, strict=True)
    assert like_floats(MATRIX, OnTheHost(MATRIX)) is MATRIX


def test_arrays_of_another_device_are_copied_to_the_host() -> None:
    np.testing.assert_array_equal(to_numpy(OnAGpu(MATRIX), "x"), MATRIX, strict=True)


def test_an_array_that_does_not_come_says_each_reason() -> None:
    with pytest.raises(
        TypeError,
        match=r"^x, a OutOfReach, holds no numbers .*__array__: Implicit conversion .* is "
        r"not allowed\.; __dlpack__: the array is on a GPU.* float32, or to a numpy array, first$",
    ):
        to_numpy(OutOfReach(MATRIX), "x")


def test_sequences_that_are_no_lists() -> None:
    assert to_numpy(range(3), "ids").tolist() == [0, 1, 2]
    assert to_numpy(python_array("i", [4, 5]), "ids").dtype == np.int32


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e3m4",
        "float8_e8m0fnu",
    ],
)
def test_floats_that_numpy_lacks_are_read_exactly(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype))
    every = np.arange(1 << 8 * kind.itemsize).astype(f"u{kind.itemsize}").view(kind)
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        finite = every[np.isfinite(every.astype(np.float64))]
    result = to_numpy(finite, "x")
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, finite.astype(np.float64))
    matrix = np.abs(MATRIX * 2).astype(kind)  # float8_e8m0fnu has no sign
    expected = wgpu_q4.quantize(matrix.astype(np.float64))
    assert wgpu_q4.quantize(matrix).same_matrix(expected)


def test_results_of_bfloat16_are_bfloat16_and_8_bits_are_no_dtype_of_results() -> None:
    x = MATRIX.astype(ml_dtypes.bfloat16)
    assert check_floats(x, "x").dtype == np.float32
    assert like_floats(MATRIX, x).dtype == ml_dtypes.bfloat16
    with pytest.raises(TypeError, match=r"not float8_e5m2, .* with \.astype\(np\.float32\)$"):
        check_floats(MATRIX.astype(ml_dtypes.float8_e5m2), "x")


def test_a_result_has_the_dtype_of_its_source() -> None:
    result = np.array([1, 70000], np.float32)
    assert like_floats(result, MATRIX) is result
    with np.errstate(all="raise"):  # infinite, without a warning
        half = like_floats(result, np.zeros(2, np.float16))
    np.testing.assert_array_equal(half, np.array([1, np.inf], np.float16), strict=True)


# A weight as an array


def test_numpy_sees_the_dequantized_matrix() -> None:
    weight = wgpu_q4.quantize(MATRIX, 8)
    matrix = np.asarray(weight)
    np.testing.assert_array_equal(matrix, weight.dequantize(), strict=True)
    assert np.abs(matrix - MATRIX).max() < 0.1
    np.testing.assert_array_equal(weight @ np.ones(32, np.float32), matrix.sum(1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_chooses_the_dtype_and_the_copy(dtype: Any) -> None:
    weight = wgpu_q4.quantize(MATRIX, 8)
    for made in (np.asarray(weight, dtype), np.array(weight, dtype, copy=True)):
        np.testing.assert_array_equal(made, weight.dequantize().astype(dtype), strict=True)


def test_floats_without_a_copy_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="cannot be had without a copy"):
        np.asarray(wgpu_q4.quantize(MATRIX, 8), copy=False)
