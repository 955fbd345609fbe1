"""What x and the bias of `linear` may be, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.cases import ODD, WIDE, Shape, anew, assert_same_bits, random_weight, random_x
from tests.products import (
    INTEGER_BITS,
    assert_within_bound,
    every_kernel,
    integer_weight,
    random_bias,
    run,
)
from wgpu_q4 import forced, linear, reference
from wgpu_q4.device import Context, context_for
from wgpu_q4.kernels import LINEAR_KERNELS, HalfSupport, Layout
from wgpu_q4.ops import product


@every_kernel
def test_nan_and_infinity_stay_in_their_rows(
    kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    """Integers have neither: the kernels that round x to them refuse both."""
    weight, x = random_weight(shape, "float16"), random_x(13, shape.embed_dim)
    step = LINEAR_KERNELS[kernel].most_rows or len(x)

    def product_of(x: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [x[first : first + step] for first in range(0, len(x), step)]
        return np.concatenate([run(kernel, layout, part, weight) for part in parts])

    clean = product_of(x)
    x[3, 5], x[7, -1], x[8, 0] = np.nan, np.inf, -np.inf
    if kernel in INTEGER_BITS:
        for wrong in (3, 7, 8):
            with pytest.raises(ValueError, match=r"^x holds infinities or NaN"):
                run(kernel, layout, x[wrong : wrong + 1], weight)
        return
    result = product_of(x)
    others = [row for row in range(13) if row not in (3, 7, 8)]
    assert_same_bits(result[others], clean[others])
    assert np.isnan(result[3]).all()
    with np.errstate(invalid="ignore"):  # an infinity times a weight of zero is NaN
        np.testing.assert_array_equal(result[7:9], reference.linear(x, weight)[7:9])


@pytest.mark.parametrize("size", [(), (1,), (2, 3), (2, 1, 2, 2)], ids=str)
def test_x_of_every_rank(size: tuple[int, ...]) -> None:
    weight, x, bias = random_weight(ODD, "float16"), random_x(*size, 24), random_bias(ODD)
    result = linear(x, weight, bias)
    assert result.shape == (*size, 13)
    assert_within_bound(result, x, weight, bias)


def test_no_rows_give_an_empty_array_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def context(device: Any) -> Context:
        pytest.fail("a device was asked for")

    monkeypatch.setattr(product, "context_for", context)
    weight = random_weight(ODD, "float16")
    for size in [(0,), (2, 0), (0, 3)]:
        result = linear(np.empty((*size, 24), np.float16), weight)
        assert (result.dtype, result.shape) == (np.dtype(np.float16), (*size, 13))
    tensor = linear(torch.empty(0, 24, dtype=torch.bfloat16), weight)
    assert (tensor.dtype, tensor.shape) == (torch.bfloat16, (0, 13))


def test_x_need_not_be_contiguous() -> None:
    weight, x = random_weight(ODD, "float16"), random_x(6, 24)
    views = [x[::2], x[:, ::-1], np.asfortranarray(x), np.broadcast_to(x[0], (2, 5, 24))]
    bias = np.repeat(random_bias(ODD), 2)[::2]
    for view in views:
        assert_within_bound(linear(view, weight, bias), view, weight, bias)
    tensor = torch.from_numpy(np.ascontiguousarray(x.T)).T
    assert not tensor.is_contiguous()
    assert_within_bound(linear(tensor, weight).numpy(), x, weight)


def test_half_precision_is_rounded_from_the_float32_result() -> None:
    weight, bias = integer_weight(ODD, "float16"), random_bias(ODD)
    sizes = np.array([[1e-6], [1e-3], [1], [1e3], [65504]])
    x = (random_x(5, 24).clip(-1, 1) * sizes).astype(np.float16)
    full = linear(x.astype(np.float32), weight, bias)
    with np.errstate(over="ignore"):
        expected = full.astype(np.float16)
    assert np.isinf(expected[4]).any()
    with np.errstate(all="raise"):  # a result beyond float16 is infinite, without a warning
        assert_same_bits(linear(x, weight, bias), expected)
    tensor = linear(torch.from_numpy(x), weight, torch.from_numpy(bias))
    assert tensor.dtype == torch.float16
    assert_same_bits(tensor.numpy(), expected)


def test_bfloat16_is_rounded_from_the_float32_result() -> None:
    weight = random_weight(ODD, "float16")
    x, bias = torch.from_numpy(random_x(2, 3, 24)).bfloat16(), torch.ones(13).bfloat16()
    full = linear(x.float(), weight, bias.float())
    result = linear(x, weight, bias)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, full.bfloat16(), rtol=0, atol=0)
    assert_within_bound(full.numpy(), x.float().numpy(), weight, bias.float().numpy())


def test_tensors_in_tensors_out() -> None:
    weight, x, bias = random_weight(ODD, "float16"), random_x(3, 24), random_bias(ODD)
    parameter = torch.nn.Parameter(torch.from_numpy(bias))
    tensor = torch.from_numpy(x).requires_grad_()
    expected = linear(x, weight, bias)
    for given in (bias, parameter, torch.from_numpy(bias)):
        with torch.no_grad():
            result = linear(tensor, weight, given)
        assert isinstance(result, torch.Tensor)
        assert_same_bits(result.numpy(), expected)
        result.zero_()
        assert_same_bits(linear(x, weight, given), expected)


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    weight, x = random_weight(ODD, "float16"), torch.from_numpy(random_x(3, 24))
    bias = torch.nn.Parameter(torch.from_numpy(random_bias(ODD)))
    with pytest.raises(RuntimeError, match=r"^x asks for a gradient.*torch\.no_grad\(\)"):
        linear(x.clone().requires_grad_(), weight)
    with pytest.raises(RuntimeError, match=r"^bias asks for a gradient.*bias\.detach\(\)"):
        linear(x, weight, bias)
    assert not linear(x, weight, bias.detach()).requires_grad


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_bias_of_another_dtype_than_x(kind: Any) -> None:
    weight, x, bias = random_weight(ODD, "float16"), random_x(3, 24), random_bias(ODD).astype(kind)
    assert_within_bound(linear(x, weight, bias), x, weight, bias)
    mixed = linear(x.astype(np.float16), weight, bias)
    assert mixed.dtype == np.float16


def test_a_bias_of_the_call_before_is_not_added() -> None:
    weight, x, bias = random_weight(ODD, "float16"), random_x(3, 24), random_bias(ODD)
    with_bias = linear(x, weight, bias)
    assert_within_bound(linear(x, weight), x, weight)
    assert_same_bits(linear(x, weight, bias * 2 - bias), with_bias)
    assert_within_bound(linear(x, weight, -bias), x, weight, -bias)


# What is refused


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 24)), r"x must be float32 or float16, not float64: .*astype\(np.float32\)"),
        (np.zeros((2, 24), np.int32), r"x must be float32 or float16, not int32: convert"),
        (np.zeros((2, 24), np.uint8), r"x must be float32 or float16, not uint8: convert"),
        (np.zeros((2, 24), bool), r"x must be float32 or float16, not bool$"),
        (np.zeros((2, 24), np.complex64), r"x must be float32 or float16, not complex64$"),
        (np.zeros((0, 24)), r"x must be float32 or float16, not float64"),
        (torch.zeros(2, 24, dtype=torch.float64), r"x must be float32 or float16, not float64"),
        (torch.zeros(2, 24, dtype=torch.int64), r"x must be float32 or float16, not int64"),
        ([[0] * 24], r"x must be float32 or float16, not int64: convert with"),
        (None, r"x must be a numpy array, a torch tensor, .*__dlpack__, not NoneType"),
    ],
)
def test_x_of_the_wrong_kind(x: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        linear(x, random_weight(ODD, "float16"))


@pytest.mark.parametrize("size", [(), (23,), (25,), (2, 13), (24, 2), (2, 0), (0,)], ids=str)
def test_x_of_the_wrong_shape(size: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"x must have shape \[\.\.\., 24\] for a weight of 13 × 24"
    ):
        linear(np.zeros(size, np.float32), random_weight(ODD, "float16"))


@pytest.mark.parametrize("size", [(), (1,), (12,), (24,), (1, 13), (13, 1)], ids=str)
def test_a_bias_of_the_wrong_shape(size: tuple[int, ...]) -> None:
    x, bias = np.zeros((1, 24), np.float32), np.zeros(size, np.float32)
    with pytest.raises(ValueError, match=r"bias must have shape \[13\], not \["):
        linear(x, random_weight(ODD, "float16"), bias)


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (np.zeros(13), "bias must be float32 or float16, not float64"),
        (np.zeros(13, np.int64), "bias must be float32 or float16, not int64"),
        ([0] * 13, "bias must be float32 or float16, not int64"),
        (True, "bias must be float32 or float16, not bool"),
    ],
)
def test_a_bias_of_the_wrong_kind(bias: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        linear(np.zeros((1, 24), np.float32), random_weight(ODD, "float16"), bias)


@pytest.mark.parametrize("weight", [np.zeros((13, 24), np.float32), torch.zeros(13, 24), None])
def test_a_weight_that_is_none(weight: Any) -> None:
    with pytest.raises(TypeError, match=r"weight must be a Q4Weight, not \w+: make one with"):
        linear(np.zeros((1, 24), np.float32), weight)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (ODD, {"kernel": "gemv_wide"}, "gemv_wide needs K and G multiples of 32, not 24 and 8"),
        (ODD, {"kernel": "gemm_int8"}, "gemm_int8 needs K and G multiples of 32"),
        (WIDE, {"kernel": "gemv_wide", "layout": "blocks_buffer"}, "needs the layout 'rows'"),
        (WIDE, {"kernel": "gemv_wide", "layout": "rows_embedding"}, "needs the layout 'rows'"),
    ],
    ids=str,
)
def test_kernels_that_do_not_fit(shape: Shape, options: Any, message: str) -> None:
    x = np.zeros((1, shape.embed_dim), np.float32)
    with pytest.raises(ValueError, match=message), forced(**options):
        linear(x, anew(random_weight(shape, "float16")))


def test_an_accuracy_that_does_not_exist() -> None:
    x, weight = np.zeros((1, 24), np.float32), random_weight(ODD, "float16")
    with pytest.raises(ValueError, match="accuracy must be one of exact, fast, int8, not 'fp8'"):
        linear(x, weight, accuracy="fp8")  # type: ignore[call-overload]


def test_x_and_the_bias_may_be_lists() -> None:
    weight, x, bias = random_weight(ODD, "float16"), random_x(2, 24), random_bias(ODD)
    assert_same_bits(linear(x.tolist(), weight, bias.tolist()), linear(x, weight, bias))
    assert_same_bits(linear(x[0].tolist(), weight), linear(x[0], weight))


def test_a_device_without_half_subnormals_refuses_their_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context_for(), "half_support", HalfSupport())
    weight, x = random_weight(WIDE, "float32"), random_x(1, 96)
    with (
        pytest.raises(ValueError, match="device that keeps half-precision subnormals"),
        forced(kernel="gemv_wide_subnormal"),
    ):
        linear(x, weight)
    assert_within_bound(linear(x, weight), x, weight)
