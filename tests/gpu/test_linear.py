"""`linear`: within the bound of float32 summation from every kernel, and exact where it must be.

The tolerance is `reference.linear_bound`, which holds for any order of summation; it is tested
itself.  As it grows with K, small integers, whose sums are exact in any order, and rows of x with a
single one in them, which read the matrix out, are held to the bit.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.cases import (
    LONG,
    ODD,
    ONE_GROUP,
    PRIME,
    TINY,
    WHOLE,
    WIDE,
    Shape,
    anew,
    assert_same_bits,
    limited_context,
    random_weight,
    random_x,
)
from tests.products import (
    INTEGER_BITS,
    KERNELS,
    LAYOUTS,
    assert_within_bound,
    every_kernel,
    integer_weight,
    integer_x,
    random_bias,
    run,
)
from wgpu_q4 import DeviceLimitError, Q4Weight, embedding, linear, reference
from wgpu_q4.device import Context, context_for
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import Dispatch, HalfSupport, Layout, plan_linear
from wgpu_q4.ops import matmul

SCALES: tuple[ScalesDtype, ...] = get_args(ScalesDtype)

every_scales = pytest.mark.parametrize("scales", SCALES)


# Every kernel


@every_kernel
@every_scales
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_every_kernel_is_within_the_bound(
    biased: bool,
    scales: ScalesDtype,
    kernel: str,
    layout: Layout,
    shape: Shape,
    rows: int,
) -> None:
    weight, x = random_weight(shape, scales), random_x(rows, shape.embed_dim)
    bias = random_bias(shape) if biased else None
    result = run(kernel, layout, x, weight, bias)
    assert_within_bound(result, x, weight, bias, kernel)


@every_kernel
@every_scales
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_sums_of_small_integers_are_exact(
    biased: bool,
    scales: ScalesDtype,
    kernel: str,
    layout: Layout,
    shape: Shape,
    rows: int,
) -> None:
    weight, x = integer_weight(shape, scales), integer_x(rows, shape, kernel)
    bias = np.arange(shape.vocab, dtype=np.float32) / 8 - 4 if biased else None
    result = run(kernel, layout, x, weight, bias)
    np.testing.assert_array_equal(result, reference.linear(x, weight, bias))
    np.testing.assert_array_equal(result[:, 2], 0 if bias is None else bias[2])  # u = 8


@every_kernel
def test_a_single_one_reads_a_column_of_the_matrix(
    kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    """Row by row, linear of the identity is the embedding, transposed."""
    if kernel in INTEGER_BITS:  # one is then so many steps, and their size is rounded
        weight, one = integer_weight(shape, "float16"), np.zeros((1, shape.embed_dim), np.float32)
        one[0, 5] = {8: 127, 16: 32512}[INTEGER_BITS[kernel]]
        column = run(kernel, layout, one, weight)
        np.testing.assert_array_equal(column, reference.linear(one, weight))
        return
    weight, columns = random_weight(shape, "float16"), np.arange(0, shape.embed_dim, 3)
    identity = np.eye(shape.embed_dim, dtype=np.float32)
    result = run(kernel, layout, identity[columns], weight)
    matrix = embedding(np.arange(shape.vocab), weight, layout=layout)
    np.testing.assert_array_equal(result, matrix[:, columns].T)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [TINY, WHOLE, ODD, ONE_GROUP, LONG], ids=str)
def test_every_shape_through_gemv(shape: Shape, layout: Layout) -> None:
    exact, weight = integer_weight(shape, "float16"), random_weight(shape, "float16")
    x, bias = integer_x(2, shape), random_bias(shape)
    np.testing.assert_array_equal(run("gemv", layout, x, exact), reference.linear(x, exact))
    assert_within_bound(run("gemv", layout, x, weight), x, weight)
    assert_within_bound(run("gemv", layout, x, weight, bias), x, weight, bias)


@pytest.mark.parametrize("layout", ["rows", "blocks_buffer"])
@pytest.mark.parametrize("shape", [TINY, ODD], ids=str)
def test_matrices_smaller_than_a_tile_through_gemm(shape: Shape, layout: Layout) -> None:
    weight, x = integer_weight(shape, "float16"), integer_x(13, shape)
    np.testing.assert_array_equal(run("gemm", layout, x, weight), reference.linear(x, weight))


@pytest.mark.parametrize("layout", ["rows", "blocks_buffer"])
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 64, 130])
def test_every_tile_of_gemm(rows: int, layout: Layout) -> None:
    """Tiles of 32, 64 and 128 rows, full and almost empty."""
    exact, weight = integer_weight(PRIME, "float16"), random_weight(PRIME, "float16")
    x = integer_x(rows, PRIME)
    np.testing.assert_array_equal(run("gemm", layout, x, exact), reference.linear(x, exact))
    assert_within_bound(run("gemm", layout, x, weight), x, weight)


@pytest.mark.parametrize(
    ("shape", "rows"), [(WIDE, 1), (WIDE, 2), (PRIME, 1), (PRIME, 12), (PRIME, 13)], ids=str
)
def test_the_kernel_of_its_own_choice(shape: Shape, rows: int) -> None:
    weight, x = random_weight(shape, "float16"), random_x(rows, shape.embed_dim)
    assert_within_bound(linear(x, weight), x, weight)


@pytest.mark.parametrize(
    ("kernel", "layout", "shape", "rows"),
    [case for case in KERNELS if case[1] in ("rows", "blocks_buffer")],
    ids=str,
)
def test_halves_converted_by_integers(
    monkeypatch: pytest.MonkeyPatch, kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    """As on a device whose built-in conversions are not right."""
    context = context_for()
    support = HalfSupport(subnormals=context.half_support.subnormals, rounding=False)
    monkeypatch.setattr(context, "half_support", support)
    weight, x = integer_weight(shape, "float16"), integer_x(rows, shape, kernel)
    np.testing.assert_array_equal(run(kernel, layout, x, weight), reference.linear(x, weight))


# The tolerance


def wrong_result(mistake: str, x: NDArray[Any], weight: Q4Weight) -> NDArray[Any]:
    """A result that is almost right."""
    row, last = weight.shape[0] // 2, (-1, -1)
    packed, scales = weight.packed.copy(), weight.scales.copy()
    if mistake == "a scale is 1 % off":
        scales[row, 0] *= np.float32(1.01)
    elif mistake == "all scales are 1 % off":
        scales *= np.float32(1.01)
    elif mistake == "a nibble is off by one":
        packed[row, 1] ^= 1
    elif mistake == "a row has its nibbles swapped":
        packed[row] = (packed[row] << 4) | (packed[row] >> 4)
    elif mistake == "columns are reversed":
        x = x[:, ::-1]
    result = reference.linear(x, Q4Weight(packed, scales)).astype(np.float32)
    if mistake == "the last output is not written":
        result[last] = 0
    elif mistake == "an output is NaN":
        result[last] = np.nan
    elif mistake == "a bias is added":
        result += np.float32(0.01)
    return result


@pytest.mark.parametrize("shape", [WHOLE, ODD, PRIME, WIDE], ids=str)
@pytest.mark.parametrize(
    "mistake",
    [
        "a scale is 1 % off",
        "all scales are 1 % off",
        "a nibble is off by one",
        "a row has its nibbles swapped",
        "columns are reversed",
        "the last output is not written",
        "an output is NaN",
        "a bias is added",
    ],
)
def test_the_bound_refuses_a_wrong_result(mistake: str, shape: Shape) -> None:
    weight, x = random_weight(shape, "float32"), random_x(3, shape.embed_dim)
    assert_within_bound(wrong_result("none", x, weight), x, weight)
    with pytest.raises(AssertionError):
        assert_within_bound(wrong_result(mistake, x, weight), x, weight)


def test_the_bound_of_long_rows_still_refuses_scales_one_percent_off() -> None:
    """It grows with K², an error like this with √K: here a single nibble may hide in it."""
    weight, x = random_weight(LONG, "float32"), random_x(3, LONG.embed_dim)
    with pytest.raises(AssertionError):
        assert_within_bound(wrong_result("all scales are 1 % off", x, weight), x, weight)


@pytest.mark.parametrize("shape", [TINY, ODD, PRIME, LONG], ids=str)
def test_the_bound_allows_any_order_of_summation(shape: Shape) -> None:
    weight, x, bias = random_weight(shape, "float32"), random_x(3, shape.embed_dim), 1
    matrix, added = weight.dequantize(), np.full(shape.vocab, bias, np.float32)
    products = x[:, None, :] * matrix
    for order in (products, products[..., ::-1], np.sort(products), -np.sort(-products)):
        one_by_one = np.cumsum(order, axis=-1, dtype=np.float32)[..., -1]
        assert_within_bound(one_by_one + added, x, weight, added)
    assert_within_bound(x @ matrix.T + added, x, weight, added)


# What x holds


@every_kernel
def test_nan_and_infinity_stay_in_their_rows(
    kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    """Integers have neither: the kernels that round x to them refuse both."""
    weight, x = random_weight(shape, "float16"), random_x(13, shape.embed_dim)
    clean = run(kernel, layout, x, weight)
    x[3, 5], x[7, -1], x[8, 0] = np.nan, np.inf, -np.inf
    if kernel in INTEGER_BITS:
        for wrong in (3, 7, 8):
            with pytest.raises(ValueError, match=r"^x holds infinities or NaN"):
                run(kernel, layout, x[wrong : wrong + 1], weight)
        return
    result = run(kernel, layout, x, weight)
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

    monkeypatch.setattr(matmul, "context_for", context)
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
        (None, r"x must be a numpy array, a torch tensor or a list of numbers, not NoneType"),
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
        (ODD, {"layout": "columns"}, "layout must be one of rows, rows_embedding, blocks_buffer"),
        (ODD, {"kernel": "fast"}, "kernel must be one of gemv, gemv_wide, gemv_wide_subnormal, ge"),
        (ODD, {"kernel": "gemv_wide"}, "gemv_wide needs K and G multiples of 32, not 24 and 8"),
        (ODD, {"kernel": "gemm_int8"}, "gemm_int8 needs K and G multiples of 32"),
        (ODD, {"accuracy": "fp8"}, "accuracy must be one of exact, fast, int8, not 'fp8'"),
        (WIDE, {"kernel": "gemv_wide", "layout": "blocks_buffer"}, "needs the layout 'rows'"),
        (WIDE, {"kernel": "gemv_wide", "layout": "rows_embedding"}, "needs the layout 'rows'"),
    ],
    ids=str,
)
def test_options_that_do_not_exist_or_do_not_fit(shape: Shape, options: Any, message: str) -> None:
    x = np.zeros((1, shape.embed_dim), np.float32)
    with pytest.raises(ValueError, match=message):
        linear(x, anew(random_weight(shape, "float16")), **options)


def test_a_device_without_half_subnormals_refuses_their_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context_for(), "half_support", HalfSupport())
    weight, x = random_weight(WIDE, "float32"), random_x(1, 96)
    with pytest.raises(ValueError, match="device that keeps half-precision subnormals"):
        linear(x, weight, kernel="gemv_wide_subnormal")
    assert_within_bound(linear(x, weight), x, weight)


# Device memory, grids and chunks

POISON = np.float32(12345.678)


@every_kernel
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_every_kernel_writes_its_result_and_no_more(
    biased: bool, kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    """Into a buffer twice as long as the result, where nothing was zero before."""
    context, weight = context_for(), integer_weight(shape, "float16")
    x, bias = integer_x(rows, shape, kernel), np.arange(shape.vocab, dtype=np.float32)
    if kernel == "gemv_wide_subnormal" and not context.half_support.subnormals:
        kernel = "gemv_wide"
    whole = np.full((2 * rows, shape.vocab), POISON)
    with context.lock:
        resident = context.weight(weight)
        _, packed = resident.packed(context, weight, layout)
        plan = plan_linear(
            resident.shape, rows, layout, biased, context.limits, context.half_support, kernel
        )
        buffers = []
        for label, values in {"out": whole, "x": x, "bias": bias}.items():
            usages = "STORAGE", "COPY_SRC", "COPY_DST"
            buffers.append(context.create_buffer(label, values.nbytes, *usages))
            context.write(buffers[-1], values)
        sizes = context.sizes(rows, plan.padded_rows)
        out, x_buffer, bias_buffer = buffers
        resources = {
            "t_out": out,
            "t_x": x_buffer,
            "t_weight": packed,
            "t_scales": resident.scales,
            "sizes": sizes,
            "t_bias": bias_buffer,
        }
        encoder = context.device.create_command_encoder()
        compute_pass = encoder.begin_compute_pass()
        matmul.dispatch_linear(context, compute_pass, plan, resources, {})
        compute_pass.end()
        context.read(encoder, out, whole)
    expected = reference.linear(x, weight, bias if biased else None)
    np.testing.assert_array_equal(whole[:rows], expected)
    assert (whole[rows:] == POISON).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_ops_read_the_same_two_resources(layout: Layout) -> None:
    weight = anew(random_weight(WIDE, "float16"))
    ids, x = np.arange(WIDE.vocab), random_x(1, WIDE.embed_dim)
    matrix = embedding(ids, weight, layout=layout)
    resident = context_for().weight(weight)
    before = resident.resources
    assert len(before) == 2
    assert_within_bound(linear(x, weight), x, weight)  # in the layout that is there
    after = resident.resources
    assert len(after) == 2
    assert all(new is old for new, old in zip(after, before, strict=True))
    assert resident.readers == {"embedding", "linear"}
    assert_same_bits(embedding(ids, weight), matrix)


@pytest.mark.parametrize(
    ("kernel", "layout", "shape", "rows", "limit", "grid"),
    [
        # 257 outputs are 9 workgroups of 32 (rows) or 2 of 32 strips (blocks) for each row of x.
        ("gemv", "rows", PRIME, 3, 6, (6, 5, 1)),
        ("gemv", "rows_embedding", PRIME, 3, 6, (6, 5, 1)),
        ("gemv", "blocks_buffer", PRIME, 7, 4, (4, 4, 1)),
        ("gemv", "blocks_texture2d", PRIME, 7, 4, (4, 4, 1)),
        # 101 outputs are one workgroup, for each 8 of 50 rows.
        ("gemv_wide", "rows", WIDE, 50, 3, (3, 3, 1)),
        ("gemv_wide_subnormal", "rows", WIDE, 50, 3, (3, 3, 1)),
        # 257 outputs are 5 tiles.
        ("gemm", "rows", PRIME, 13, 3, (3, 2, 1)),
        ("gemm", "rows_embedding", PRIME, 13, 3, (3, 2, 1)),
        ("gemm", "blocks_buffer", PRIME, 13, 3, (3, 2, 1)),
        ("gemm", "blocks_texture2d", PRIME, 13, 3, (3, 2, 1)),
        # 101 outputs are 2 tiles, for each 128 of 300 rows, which 6 workgroups quantize.
        ("gemm_int8", "rows", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemm_int8", "rows_embedding", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemm_int8", "blocks_buffer", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemm_int8", "blocks_texture2d", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemv_int16", "rows", WIDE, 50, 3, (3, 3, 1)),
        # 13 strips of blocks are two workgroups, for each of 5 rows.
        ("gemv_int8", "blocks_buffer", WIDE, 7, 3, (3, 3, 1)),
        ("gemv_int16", "blocks_texture2d", WIDE, 7, 3, (3, 3, 1)),
    ],
)
def test_grids_are_folded(
    monkeypatch: pytest.MonkeyPatch,
    kernel: str,
    layout: Layout,
    shape: Shape,
    rows: int,
    limit: int,
    grid: tuple[int, int, int],
) -> None:
    """Each with some workgroups too many, which have nothing to do."""
    context, seen = context_for(), []
    dispatch = context.dispatch

    def spy(compute_pass: Any, plan: Dispatch, *rest: Any) -> None:
        seen.append(plan.workgroups)
        dispatch(compute_pass, plan, *rest)

    weight, x = integer_weight(shape, "float16"), integer_x(rows, shape, kernel)
    run(kernel, layout, x, weight)  # uploads and packs, within the limits that there are
    limits = {**context.limits, "max-compute-workgroups-per-dimension": limit}
    monkeypatch.setattr(context, "limits", limits)
    monkeypatch.setattr(context, "dispatch", spy)
    for values in (x, -x):  # the second finds the results of the first in its buffers
        result = run(kernel, layout, values, weight)
        np.testing.assert_array_equal(result, reference.linear(values, weight))
    assert grid in seen
    assert max(max(x, y) for x, y, _ in seen) <= limit
    prepares = kernel.startswith("gemm") or kernel in INTEGER_BITS
    assert len(seen) == (4 if prepares else 2)


@pytest.fixture(scope="module")
def small() -> Context:
    """A device that binds 16 KiB at a time: 15 rows of 257 outputs."""
    return limited_context({"max-storage-buffer-binding-size": 16384, "max-buffer-size": 32768})


@pytest.mark.parametrize("rows", [14, 15, 16, 40])
def test_results_larger_than_a_binding(small: Context, rows: int) -> None:
    """The last chunk of 40 rows is for the GEMV, the two before it for the GEMM."""
    weight, x = integer_weight(PRIME, "float16"), integer_x(rows, PRIME)
    bias = np.arange(PRIME.vocab, dtype=np.float32)
    result = linear(x, weight, bias, small.device)
    np.testing.assert_array_equal(result, reference.linear(x, weight, bias))


def test_a_weight_larger_than_a_binding(small: Context) -> None:
    weight = random_weight(LONG, "float16")
    with pytest.raises(DeviceLimitError, match="the packed weight takes 134,144 bytes"):
        linear(random_x(1, 2048), weight, device=small.device)


def test_rows_of_x_too_long_for_tiles(small: Context) -> None:
    """21 rows of 192 columns are 16 KiB, which the tiled kernel would pad to 32 rows."""
    shape = Shape(13, 192, 24)
    weight, x = integer_weight(shape, "float16"), integer_x(30, shape)
    result = linear(x, weight, device=small.device)
    np.testing.assert_array_equal(result, reference.linear(x, weight))
    with pytest.raises(DeviceLimitError, match=r"prepared x takes 24,576 bytes .* allows 16,384"):
        linear(x, weight, device=small.device, kernel="gemm")


def test_a_row_larger_than_a_binding(small: Context) -> None:
    weight, x = random_weight(Shape(1, 4104, 4104), "float16"), random_x(1, 4104)
    with pytest.raises(DeviceLimitError, match="one row of x or of the result takes 16,416 bytes"):
        linear(x, weight, device=small.device)
