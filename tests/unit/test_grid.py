"""Matrices that lie on a 4-bit grid keep their values when they are quantized."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wgpu_q4 import Q4Weight
from wgpu_q4.format import ScalesDtype, dequantize, quantize

every_dtype = pytest.mark.parametrize("dtype", ["float16", "float32"])


def normal(rows: int = 160, columns: int = 64, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@every_dtype
@pytest.mark.parametrize("group_size", [8, 32])
@pytest.mark.usefixtures("ranges")
def test_quantize_is_idempotent(group_size: int, dtype: ScalesDtype) -> None:
    once = Q4Weight.quantize(normal(), group_size, dtype)
    again = Q4Weight.quantize(once.dequantize(), group_size, dtype)
    if dtype == "float16":
        assert again.same_matrix(once)
    # A float32 scale may have a neighbour that gives the same products.
    assert again.sha256 == once.sha256
    np.testing.assert_array_equal(again.dequantize(), once.dequantize())


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float16", "float32"]),
    exponent=st.integers(-14, 10),
)
def test_any_nibbles_and_scales_keep_their_values(seed: int, dtype: Any, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    packed = rng.integers(0, 256, (7, 24), np.uint8)
    scales = rng.uniform(1, 2, (7, 6)) * rng.choice([-1, 1], (7, 6)) * 2.0**exponent
    matrix = Q4Weight(packed, scales.astype(dtype)).dequantize()
    np.testing.assert_array_equal(Q4Weight.quantize(matrix, 8, dtype).dequantize(), matrix)


@pytest.mark.parametrize(
    ("integers", "scale"),
    [
        ([-8, 7, 0, 1, 2, 3, 4, 5], 0.75),
        ([7, 0, 1, -7, 2, 3, -4, 5], 0.75),
        ([-8, 0, 1, 7, 2, 3, -4, 5], -0.75),  # Q4_0: the largest is positive, the scale negative
        ([4, 2, -4, 0, 0, 0, 0, 2], 0.5),
        ([1, 1, 1, 1, 1, 1, 1, 1], 3.0),
        ([-1, 0, 0, 0, 0, 0, 0, 0], 3.0),
    ],
)
@every_dtype
def test_values_of_a_group(integers: list[int], scale: float, dtype: ScalesDtype) -> None:
    matrix = np.array([integers], np.float32) * np.float32(scale)
    packed, scales = quantize(matrix, 8, dtype)
    np.testing.assert_array_equal(dequantize(packed, scales, "linear"), matrix)


def test_the_blocks_of_a_gguf_keep_their_values() -> None:
    """Q4_0 by its definition: ``d = m / −8`` in half precision for the largest ``m``."""
    groups = normal().reshape(-1, 32)
    places = np.abs(groups).argmax(axis=1)[:, None]
    scale = (np.take_along_axis(groups, places, axis=1) / -8).astype(np.float16)
    integers = np.clip(np.rint(groups / scale.astype(np.float32)), -8, 7)
    matrix = (integers * scale.astype(np.float32)).reshape(160, 64)
    assert (scale < 0).any()
    np.testing.assert_array_equal(Q4Weight.quantize(matrix).dequantize(), matrix)


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values.astype(ml_dtypes.bfloat16).astype(np.float32))


def float16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values.astype(np.float16).astype(np.float32))


@every_dtype
@pytest.mark.parametrize("rounded", [bfloat16, float16])
@pytest.mark.parametrize("seed", range(4))
def test_values_that_were_rounded_since(rounded: Any, seed: int, dtype: ScalesDtype) -> None:
    """As transformers does to a GGUF that it loads in 16 bits."""
    rng = np.random.default_rng(seed)
    packed = rng.integers(0, 256, (40, 64), np.uint8)
    scales = rng.uniform(0.001, 0.1, (40, 4)) * rng.choice([-1, 1], (40, 4))
    before = Q4Weight(packed, scales.astype(np.float16)).dequantize()
    matrix = rounded(before)
    assert (matrix != before).any()
    found = Q4Weight.quantize(matrix, 32, dtype).dequantize()
    np.testing.assert_array_equal(rounded(found), matrix)
    # Both are within half a unit in the last place of the matrix: at most 2^-8 of it.
    assert (np.abs(found - before) <= 2.0**-8 * np.abs(matrix)).all()


@pytest.mark.parametrize("rounded", [bfloat16, float16])
def test_a_matrix_of_16_bits_that_was_never_4_bit(rounded: Any) -> None:
    matrix = rounded(normal())
    _, scales = quantize(matrix)
    largest = np.abs(matrix.reshape(160, -1, 32)).max(axis=2)
    np.testing.assert_array_equal(scales, (largest / np.float32(7.5)).astype(np.float16))


def test_one_value_off_the_grid_and_the_rule_is_the_usual_one() -> None:
    matrix = Q4Weight.quantize(normal()).dequantize()
    matrix[-1, -1] = np.nextafter(matrix[-1, -1], np.float32(9))
    _, scales = quantize(matrix)
    largest = np.abs(matrix.reshape(160, -1, 32)).max(axis=2)
    np.testing.assert_array_equal(scales, (largest / np.float32(7.5)).astype(np.float16))


def test_a_scale_that_half_precision_lacks_is_on_no_grid_of_it() -> None:
    matrix = np.array([[-8, 7, 0, 1, 2, 3, 4, 5]], np.float32) * np.float32(0.1)
    packed, scales = quantize(matrix, 8, "float32")
    np.testing.assert_array_equal(dequantize(packed, scales, "linear"), matrix)
    packed, scales = quantize(matrix, 8, "float16")
    assert scales[0, 0] == np.float16(0.8 / 7.5)


def test_groups_of_zeros_between_others() -> None:
    matrix = Q4Weight.quantize(normal(), 8).dequantize()
    matrix[::3, 8:16] = 0
    matrix[5] = 0
    np.testing.assert_array_equal(Q4Weight.quantize(matrix, 8).dequantize(), matrix)


def test_doubles_and_halves_are_on_a_grid_as_floats_are() -> None:
    matrix = np.array([[-8, 7, 0, 1, 2, 3, 4, 5]]) * 0.75
    for dtype in (np.float64, np.float16):
        packed, scales = quantize(matrix.astype(dtype), 8)
        np.testing.assert_array_equal(dequantize(packed, scales, "linear"), matrix)
