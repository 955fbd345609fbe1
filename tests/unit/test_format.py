"""The q4gsw format: quantizing, dequantizing, and what they refuse.

``tests/executorch/test_format.py`` holds the same functions against torchao and ExecuTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.matrices import Shape, difficult, every_shape, normal, random_packed
from wgpu_q4.errors import FormatError
from wgpu_q4.format import (
    ScalesDtype,
    dequantize,
    quantize,
    repack,
    unpack,
)
from wgpu_q4.format.shape import check_scales, check_shapes

# Quantizing


def test_half_scales_are_the_float_ones_rounded_and_leave_the_values_alone() -> None:
    weight = normal(Shape(13, 96, 24))
    packed_half, half = quantize(weight, 24, "float16")
    packed, scales = quantize(weight, 24, "float32")
    np.testing.assert_array_equal(packed_half, packed)
    np.testing.assert_array_equal(half, scales.astype(np.float16), strict=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_quantize_computes_in_float32_whatever_the_input(dtype: type[np.floating[Any]]) -> None:
    weight = normal(Shape(5, 64, 32)).astype(dtype)
    packed, scales = quantize(weight, 32, "float32")
    expected_packed, expected_scales = quantize(weight.astype(np.float32), 32, "float32")
    np.testing.assert_array_equal(packed, expected_packed)
    np.testing.assert_array_equal(scales, expected_scales)


def test_quantize_reads_any_strides() -> None:
    weight = normal(Shape(48, 34, 8))
    view = weight.T[::2, ::-1]
    for result, expected in zip(quantize(view, 16), quantize(view.copy(), 16), strict=True):
        np.testing.assert_array_equal(result, expected)


@every_shape
@pytest.mark.parametrize("scales_dtype", ["float32", "float16"])
def test_error_is_at_most_half_a_scale(shape: Shape, scales_dtype: ScalesDtype) -> None:
    """|w − ŵ| ≤ s/2, and what rounding adds.

    With u = 2⁻²⁴: s = (max/7.5)(1 + δ₁), and the value that is rounded to a nibble is
    p = (w/s)(1 + η), |η| ≤ 2u + u², |w/s| ≤ 7.5/(1 − u).  Without clipping |p − q| ≤ 1/2.  Only
    p ≥ 7.5 clips, to 7 (−7.5 rounds to −8, which exists): there |w/s − 7| ≤ 7.5/(1 − u) − 7.
    Either way |w/s − q| ≤ 1/2 + 16u.  A half scale adds at most 8·|s₁₆ − s|.
    """
    for name, weight in difficult(shape).items():
        if scales_dtype == "float16" and name in ("huge", "spread"):
            continue  # their scales exceed float16, which test_scale_beyond_float16 covers
        packed, scales = quantize(weight, shape.group_size, scales_dtype)
        scale = quantize(weight, shape.group_size, "float32")[1].astype(np.float64)[:, :, None]
        bound = scale * (0.5 + 16 * 2.0**-24)
        if scales_dtype == "float16":
            bound = bound + 8 * np.maximum(scale * 2.0**-11, 2.0**-25)
        values = unpack(packed, "linear").astype(np.float64) - 8
        groups = (shape.vocab, -1, shape.group_size)
        restored = values.reshape(groups) * scales.astype(np.float64)[:, :, None]
        error = np.abs(weight.astype(np.float64).reshape(groups) - restored)
        assert (error <= bound).all(), name
        if name == "ties" and scales_dtype == "float32":
            # The bound is met: a looser quantizer would pass a looser test.
            assert error.max() >= 0.5 * scale.min()


def test_the_largest_positive_value_clips_and_the_largest_negative_does_not() -> None:
    weight = np.full((2, 8), 7.5, np.float32)
    weight[1] = -7.5
    weight[:, 7] = 0.3  # on no 4-bit grid with the others
    packed, scales = quantize(weight, 8, "float32")
    np.testing.assert_array_equal(scales, [[1], [1]])
    np.testing.assert_array_equal(unpack(packed, "linear"), [[15] * 7 + [8], [0] * 7 + [8]])


def test_a_group_of_zeros_is_exactly_zero() -> None:
    packed, scales = quantize(np.zeros((1, 8), np.float32), 8, "float32")
    assert scales[0, 0] == np.finfo(np.float32).tiny
    assert (packed == 0x88).all()
    assert not dequantize(packed, scales, "linear").any()


# Dequantizing


def test_dequantize_of_half_scales_is_exact() -> None:
    rng = np.random.default_rng(3)
    shape = Shape(11, 48, 8)
    packed = random_packed(shape)
    # Every kind of half: subnormal, negative (other packers make them), the largest.
    scales = rng.integers(0, 1 << 16, (11, 6), np.uint16).view(np.float16)
    scales[~np.isfinite(scales)] = 65504
    exact = unpack(packed, "linear").astype(np.float64) - 8
    exact = exact.reshape(11, 6, 8) * scales.astype(np.float64)[:, :, None]
    result = dequantize(packed, scales, "linear")
    np.testing.assert_array_equal(result.astype(np.float64), exact.reshape(11, 48))


# Bad input


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([[1.0]], "float16, float32 or float64 array, not list"),
        (np.zeros((2, 8), np.int32), "not int32"),
        (np.zeros((2, 8), np.complex64), "not complex64"),
        (np.zeros((2, 8), ">f4"), "not >f4"),
    ],
)
def test_quantize_takes_floats_only(weight: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        quantize(weight, 8)


@pytest.mark.parametrize("size", [(8,), (0, 8), (2, 2, 8)])
def test_quantize_takes_matrices_only(size: tuple[int, ...]) -> None:
    with pytest.raises(FormatError, match=r"must have shape \[V, K\] with V ≥ 1, not \["):
        quantize(np.zeros(size, np.float32), 8)


@pytest.mark.parametrize("embed_dim", [0, 4, 12, 33])
def test_rows_are_a_multiple_of_8(embed_dim: int) -> None:
    with pytest.raises(FormatError, match=f"K = {embed_dim} values.*multiple of 8"):
        quantize(np.zeros((2, embed_dim), np.float32), 8)


@pytest.mark.parametrize("group_size", [0, -8, 4, 12, 32, 96])
def test_groups_that_do_not_fit_say_which_do(group_size: int) -> None:
    message = f"group_size = {group_size} does not fit .* Allowed here: 8, 16, 24, 48$"
    with pytest.raises(FormatError, match=message):
        quantize(np.zeros((2, 48), np.float32), group_size)


@pytest.mark.parametrize("group_size", [8.0, "8", True, None])
def test_group_size_is_an_integer(group_size: Any) -> None:
    with pytest.raises(TypeError, match="group_size must be an int, not"):
        quantize(np.zeros((2, 8), np.float32), group_size)


@pytest.mark.parametrize("scales_dtype", ["bfloat16", "float64", np.int8, "nonsense", None])
def test_scales_dtype_is_half_or_float(scales_dtype: Any) -> None:
    with pytest.raises(FormatError, match="must be one of float32, float16, not"):
        quantize(np.zeros((2, 8), np.float32), 8, scales_dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("ranges")
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    weight = normal(Shape(257, 40, 8))
    weight[250, 33] = value
    with pytest.raises(FormatError, match=rf"weight\[250, 33\] is {value} in float32"):
        quantize(weight, 8)


def test_a_double_beyond_float32_is_named() -> None:
    weight = np.zeros((3, 16))
    weight[2, 9] = -1e300
    with pytest.raises(FormatError, match=r"weight\[2, 9\] is -inf in float32"):
        quantize(weight, 8)


def test_scale_beyond_float16_says_what_to_do() -> None:
    weight = np.full((1, 8), 65520 * 7.5, np.float32)  # 65520 is the first that rounds to infinity
    weight[0, 7] = 0.3  # on no 4-bit grid with the others
    with pytest.raises(FormatError, match=r"65520, beyond float16.*scales_dtype='float32'"):
        quantize(weight, 8, "float16")
    assert quantize(weight, 8, "float32")[1][0, 0] == 65520
    assert quantize(np.nextafter(weight, np.float32(0)), 8)[1][0, 0] == 65504


@pytest.mark.parametrize("convention", ["gguf", None, 1, ["linear"]])
def test_conventions_are_two(convention: Any) -> None:
    packed = np.zeros((1, 4), np.uint8)
    with pytest.raises(FormatError, match="convention must be 'linear' or 'embedding', not"):
        repack(packed, "linear", convention)
    with pytest.raises(FormatError, match="convention must be 'linear' or 'embedding', not"):
        unpack(packed, convention)


PACKED = np.zeros((3, 24), np.uint8)  # V = 3, K = 48
SCALES = np.ones((3, 3), np.float16)  # G = 16


def test_the_shape_is_found() -> None:
    assert check_shapes(PACKED, SCALES) == (3, 48, 16)


@pytest.mark.parametrize(
    ("packed", "scales", "message"),
    [
        (PACKED.astype(np.int8), SCALES, "packed must be uint8 .* not int8"),
        (PACKED[0], SCALES, r"packed must have shape \[V, K/2\] with V ≥ 1, not \[24\]"),
        (PACKED[:0], SCALES[:0], r"with V ≥ 1, not \[0, 24\]"),
        (PACKED[:, :0], SCALES, r"not \[3, 0\]"),
        (PACKED[:, :22], SCALES[:, :1], "K = 44 values"),
        (PACKED, SCALES.astype(np.float64), "scales must be float16 or float32, .* not float64"),
        (PACKED, SCALES.astype(">f2"), "native-endian, not >f2"),
        (PACKED, SCALES[:2], r"\[V, K/G\] = \[3, 48/G\] beside .* not \[2, 3\]"),
        (PACKED, SCALES[0], r"not \[3\]"),
        (PACKED, SCALES[:, :0], r"not \[3, 0\]"),
        (PACKED, np.ones((3, 5), np.float16), "5 groups a row, which does not divide K = 48"),
        (PACKED, np.ones((3, 4), np.float16), "group_size = 12 does not fit rows of K = 48"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(packed: Any, scales: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        check_shapes(packed, scales)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_not_finite_is_named(value: float) -> None:
    scales = SCALES.copy()
    scales[1, 2] = value
    with pytest.raises(FormatError, match=rf"scales\[1, 2\] is {value}; every scale must be"):
        check_scales(scales)
