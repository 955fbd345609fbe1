"""`linear` with x rounded to integers: within its bound, exact where it can be, never unasked.

The bound is `reference.linear_bound` with the integers' bits: what the rounding of x may do,
besides the summation.  Here it is held against a plain model of that, and against wrong results.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import LONG, WHOLE, WIDE, Shape, assert_same_bits, random_weight, random_x
from tests.products import (
    INTEGER_BITS,
    INTEGER_GEMVS,
    LAYOUTS,
    WIDE_LAYOUTS,
    assert_within_bound,
    integer_weight,
    integer_x,
    run,
)
from wgpu_q4 import Q4Weight, forced, linear, reference
from wgpu_q4.device import context_for
from wgpu_q4.errors import KernelError
from wgpu_q4.kernels import Accuracy, Layout, MatrixShape, choose_linear, plan_linear


@pytest.mark.parametrize(
    ("kernel", "layout"),
    [
        ("gemv_wide", "rows"),
        ("gemv_wide_subnormal", "rows"),
        *product(INTEGER_GEMVS, ("rows", "blocks_buffer")),
    ],
)
@pytest.mark.parametrize("shape", [WHOLE, LONG, Shape(3, 6400, 64)], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 4, 5, 8, 17])
def test_more_shapes_through_the_wide_gemvs(
    rows: int, shape: Shape, kernel: str, layout: Layout
) -> None:
    """As many rows of x at once as there are variants; K beyond what is staged at a time."""
    exact, weight = integer_weight(shape, "float16"), random_weight(shape, "float16")
    x, random = integer_x(rows, shape, kernel), random_x(rows, shape.embed_dim)
    np.testing.assert_array_equal(run(kernel, layout, x, exact), reference.linear(x, exact))
    assert_within_bound(run(kernel, layout, random, weight), random, weight, None, kernel)


@pytest.mark.parametrize(
    "shape",
    [
        *(WHOLE, LONG, Shape(3, 6400, 64), Shape(1, 32, 32), Shape(257, 576, 32)),
        *(Shape(64, 1024, 1024), Shape(65, 1056, 32), Shape(31, 2048, 64), Shape(33, 2080, 32)),
    ],
    ids=str,
)
def test_more_shapes_through_registers(shape: Shape) -> None:
    """One chunk of x, fewer than a team has lanes, as many, one more, and several turns."""
    exact, weight = integer_weight(shape, "float16"), random_weight(shape, "float32")
    x, random = integer_x(1, shape), random_x(1, shape.embed_dim)
    kernel = "gemv_registers"
    np.testing.assert_array_equal(run(kernel, "rows", x, exact), reference.linear(x, exact))
    assert_within_bound(run(kernel, "rows", random, weight), random, weight, None, kernel)


def test_several_rows_are_not_for_registers() -> None:
    with (
        pytest.raises(KernelError, match="gemv_registers takes 1 row of x, not 2"),
        forced(kernel="gemv_registers"),
    ):
        linear(random_x(2, WHOLE.embed_dim), random_weight(WHOLE, "float16"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 130])
def test_every_tile_of_integers(rows: int, layout: Layout) -> None:
    """Tiles of 64 and 128 rows, full and almost empty; several chunks in a group."""
    shape = Shape(131, 192, 64)
    exact, weight = integer_weight(shape, "float16"), random_weight(shape, "float16")
    x, random = integer_x(rows, shape, "gemm_int8"), random_x(rows, shape.embed_dim)
    result = run("gemm_int8", layout, x, exact)
    np.testing.assert_array_equal(result, reference.linear(x, exact))
    assert_within_bound(run("gemm_int8", layout, random, weight), random, weight, None, "gemm_int8")


@pytest.mark.parametrize(("kernel", "layout"), list(product(INTEGER_GEMVS, WIDE_LAYOUTS)))
def test_one_row_prepared_and_unprepared(kernel: str, layout: Layout) -> None:
    """A long row leaves no room in a workgroup; a matrix of many rows is several tiles of each."""
    context = context_for()
    # A chunk of 32 takes 48 bytes of workgroup memory at least.
    too_long = (context.limits["max-compute-workgroup-storage-size"] // 48 + 2) * 32
    shapes = [
        Shape(3, 64, 32),
        Shape(3, too_long, 32),
        Shape(210_000 if layout == "rows" else 600, 32, 32),
    ]
    tiles, prepared = [], []
    for shape in shapes:
        sizes = MatrixShape(shape.vocab, shape.embed_dim, shape.group_size, "float16")
        plan = plan_linear(sizes, 1, layout, False, context.limits, context.half_support, kernel)
        tiles.append(plan.product.constants["TILES"])
        prepared.append(plan.preparation is not None)
        weight, x = integer_weight(shape, "float16"), integer_x(1, shape, kernel)
        result = run(kernel, layout, x, weight)
        np.testing.assert_array_equal(result, reference.linear(x, weight))
    assert prepared == [False, True, False]
    assert tiles[1] == 1
    if layout == "rows" or kernel == "gemv_int8":
        assert tiles[2] > 1


# Which accuracy


@pytest.mark.parametrize("accuracy", ["fast", "int8"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 3, 13, 70])
@pytest.mark.parametrize("software", [False, True], ids=["gpu", "processor"])
def test_an_accuracy_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    software: bool,
    rows: int,
    layout: Layout,
    accuracy: Accuracy,
) -> None:
    """And used: a rougher kernel, where there is one, gives another result."""
    monkeypatch.setattr(context_for(), "is_software", software)
    weight, x = random_weight(LONG, "float16"), random_x(rows, LONG.embed_dim)
    chosen = choose_linear(
        MatrixShape(LONG.vocab, LONG.embed_dim, LONG.group_size, "float16"),
        rows,
        layout,
        context_for().half_support,
        accuracy,
        software=software,
        subgroup=context_for().subgroup_size,
    ).kernel.name
    with forced(layout=layout):
        result = linear(x, weight, accuracy=accuracy)
    assert_within_bound(result, x, weight, None, chosen)
    with forced(layout=layout):
        exact = linear(x, weight)
    assert np.array_equal(result, exact) == (chosen not in INTEGER_BITS)
    assert_within_bound(exact, x, weight)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    "options",
    [{"accuracy": "fast"}, {"accuracy": "int8"}, *({"kernel": name} for name in INTEGER_BITS)],
    ids=str,
)
def test_what_cannot_be_rounded_is_refused(value: float, options: dict[str, Any]) -> None:
    x = random_x(3, WIDE.embed_dim).copy()
    x[1, 5] = value
    with (
        pytest.raises(ValueError, match=r"infinities or NaN, .* use accuracy='exact'"),
        forced(kernel=options.get("kernel")),
    ):
        linear(x, random_weight(WIDE, "float16"), accuracy=options.get("accuracy", "exact"))


@pytest.mark.parametrize("kernel", INTEGER_BITS)
def test_activations_near_the_ends_of_float32(kernel: str) -> None:
    """Steps that are neither infinite nor subnormal; chunks of zeros and of next to nothing."""
    weight = random_weight(WIDE, "float16")
    sizes = np.array([[1e-30], [1e30], [0], [1e-33]], np.float32)
    x = random_x(4, WIDE.embed_dim) * sizes
    result = run(kernel, "rows", x, weight)
    assert_within_bound(result, x, weight, None, kernel)
    np.testing.assert_array_equal(result[2:], 0)


@pytest.mark.parametrize(
    ("kernel", "layout"),
    [
        ("gemv_int16", "rows"),
        ("gemv_int8", "rows"),
        ("gemv_int16", "blocks_buffer"),
        ("gemv_int8", "blocks_buffer"),
        ("gemm_int8", "rows"),
    ],
)
@pytest.mark.parametrize("size", [1e-8, 6e-8])
def test_two_small_scales_whose_product_is_subnormal(
    size: float, kernel: str, layout: Layout
) -> None:
    """The results are normal floats: they keep the bound, and are no zeros."""
    rng = np.random.default_rng(9)
    packed = rng.integers(0, 256, (WIDE.vocab, WIDE.embed_dim // 2), np.uint8)
    scales = np.full((WIDE.vocab, WIDE.embed_dim // WIDE.group_size), size, np.float32)
    weight, x = Q4Weight(packed, scales), random_x(3, WIDE.embed_dim) * np.float32(3e-30)
    result = run(kernel, layout, x, weight)
    assert_within_bound(result, x, weight, None, kernel)
    assert np.abs(result).min() > 0


def test_a_kernel_on_matrix_units_refuses_infinities_too() -> None:
    x = np.full((3, WIDE.embed_dim), np.inf, np.float32)
    with (
        pytest.raises(ValueError, match=r"infinities or NaN, .* use accuracy='exact'"),
        forced(kernel="gemm_matrix"),
    ):
        linear(x, random_weight(WIDE, "float16"))


def test_exact_is_what_nobody_asked_for() -> None:
    weight, x = random_weight(WIDE, "float16"), random_x(3, WIDE.embed_dim)
    assert_same_bits(linear(x, weight), linear(x, weight, accuracy="exact"))
    assert not np.array_equal(linear(x, weight), linear(x, weight, accuracy="int8"))


# The bound


def rounded(x: NDArray[np.float32], bits: int) -> NDArray[np.float64]:
    """x as 32 columns with a common step hold it, in float64."""
    chunks = x.astype(np.float64).reshape(len(x), -1, 32)
    steps = np.abs(chunks).max(axis=-1, keepdims=True) / {8: 127, 16: 32512}[bits]
    integers = np.round(np.divide(chunks, steps, out=np.zeros_like(chunks), where=steps > 0))
    return np.asarray((integers * steps).reshape(x.shape))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [WHOLE, WIDE, LONG], ids=str)
def test_the_bound_allows_the_rounding(shape: Shape, bits: int) -> None:
    """And not much more: roundings add up like a random walk, the bound takes one sign for all."""
    weight, x = random_weight(shape, "float16"), random_x(5, shape.embed_dim)
    wrong = np.abs(reference.linear(rounded(x, bits), weight) - reference.linear(x, weight))
    bound = reference.linear_bound(x, weight, None, bits) - reference.linear_bound(x, weight)
    assert (wrong <= bound).all()
    assert (wrong / bound).max() > 0.5 / np.sqrt(shape.embed_dim)


@pytest.mark.parametrize("kernel", INTEGER_BITS)
@pytest.mark.parametrize(
    "mistake",
    [
        "the low plane is left out",
        "the offset is left out",
        "two halves of an octet are swapped",
        "nibbles are swapped",
        "an output is not written",
        "an output is NaN",
    ],
)
def test_the_bound_refuses_a_wrong_result(mistake: str, kernel: str) -> None:
    weight, x = random_weight(WIDE, "float16"), random_x(3, WIDE.embed_dim)
    given, other = x.astype(np.float64), weight
    if mistake == "the low plane is left out":
        if INTEGER_BITS[kernel] == 8:
            return  # there is no other
        chunks = given.reshape(3, -1, 32)
        steps = np.abs(chunks).max(axis=-1, keepdims=True) / 127
        given = (np.floor(chunks / steps + 0.5) * steps).reshape(x.shape)
    elif mistake == "two halves of an octet are swapped":
        given = given.reshape(3, -1, 2, 4)[:, :, ::-1].reshape(x.shape)
    elif mistake == "nibbles are swapped":
        other = Q4Weight((weight.packed << 4) | (weight.packed >> 4), weight.scales)
    result = reference.linear(given.astype(np.float32), other).astype(np.float32)
    if mistake == "the offset is left out":  # Σ u · x in place of Σ (u − 8) · x
        scales = np.repeat(weight.scales.astype(np.float64), WIDE.group_size, axis=1)
        result += (8 * given @ scales.T).astype(np.float32)
    elif mistake == "an output is not written":
        result[np.unravel_index(np.argmax(np.abs(result)), result.shape)] = 0
    elif mistake == "an output is NaN":
        result[-1, -1] = np.nan
    assert_within_bound(reference.linear(x, weight).astype(np.float32), x, weight, None, kernel)
    with pytest.raises(AssertionError):
        assert_within_bound(result, x, weight, None, kernel)
