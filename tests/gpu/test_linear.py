"""`linear`: within the bound of float32 summation from every kernel, and exact where it must be.

The tolerance is `reference.linear_bound`, which holds for any order of summation; it is tested
itself.  As it grows with K, small integers, whose sums are exact in any order, and rows of x with a
single one in them, which read the matrix out, are held to the bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from tests.cases import (
    LONG,
    ODD,
    ONE_GROUP,
    PRIME,
    TINY,
    WHOLE,
    WIDE,
    Shape,
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
from wgpu_q4 import embedding, forced, linear, reference
from wgpu_q4.device import context_for
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import LINEAR_KERNELS, Layout

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
def test_sums_of_small_integers_are_exact(
    scales: ScalesDtype, kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    weight, x = integer_weight(shape, scales), integer_x(rows, shape, kernel)
    bias = np.arange(shape.vocab, dtype=np.float32) / 8 - 4
    result = run(kernel, layout, x, weight, bias)
    np.testing.assert_array_equal(result, reference.linear(x, weight, bias))
    np.testing.assert_array_equal(result[:, 2], bias[2])  # u = 8


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
    step = LINEAR_KERNELS[kernel].most_rows or len(columns)
    result = np.concatenate(
        [
            run(kernel, layout, identity[columns[first : first + step]], weight)
            for first in range(0, len(columns), step)
        ]
    )
    with forced(layout=layout):
        matrix = embedding(np.arange(shape.vocab), weight)
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
    support = replace(context.half_support, rounding=False)
    monkeypatch.setattr(context, "half_support", support)
    weight, x = integer_weight(shape, "float16"), integer_x(rows, shape, kernel)
    np.testing.assert_array_equal(run(kernel, layout, x, weight), reference.linear(x, weight))
