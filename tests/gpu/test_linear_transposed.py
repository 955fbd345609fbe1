"""The transposed product ``y · W``: against float64, on shapes that fill nothing."""

from __future__ import annotations

from typing import Any

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
    WIDE,
    Shape,
    anew,
    random_weight,
    random_x,
)
from tests.products import integer_weight
from wgpu_q4 import Q4Weight, linear, reference
from wgpu_q4.device import Context
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.ops import linear_transposed

# Several parts, the last of them shorter; columns for a second workgroup that fill one word of it.
PARTS = Shape(1031, 264, 24)
# One part exactly, whose rows are no multiple of the four lanes.
ONE_PART = Shape(63, 256, 32)

every_shape = pytest.mark.parametrize(
    "shape", [TINY, ODD, ONE_GROUP, PRIME, WIDE, LONG, PARTS, ONE_PART], ids=str
)


def assert_within_bound(result: NDArray[Any], y: NDArray[Any], weight: Q4Weight) -> None:
    expected = reference.linear_transposed(y, weight)
    assert (result.dtype, result.shape) == (np.dtype(np.float32), expected.shape)
    excess = np.abs(result - expected) - reference.linear_transposed_bound(y, weight)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert not (excess > 0).any(), f"{result[worst]} at {worst} must be {expected[worst]}"


@every_shape
@pytest.mark.parametrize("scales_dtype", ["float16", "float32"])
def test_is_within_the_bound_of_a_float32_sum(shape: Shape, scales_dtype: Any) -> None:
    weight = random_weight(shape, scales_dtype)
    for rows in (1, 3, 4, 5):  # a workgroup takes four
        y = random_x(rows, shape.vocab)
        assert_within_bound(linear_transposed(y, weight), y, weight)


@every_shape
def test_integers_are_summed_exactly(shape: Shape) -> None:
    """Every row of the weight counts once: with integers there is no error to hide one in."""
    weight = integer_weight(shape, "float32")
    y = np.random.default_rng(9).integers(-8, 9, (6, shape.vocab)).astype(np.float32)
    expected = reference.linear_transposed(y, weight)
    np.testing.assert_array_equal(linear_transposed(y, weight), expected)


@pytest.mark.parametrize("row", [0, 63, 64, 127, 1030])
def test_one_row_of_y_that_is_one_hot_is_a_row_of_the_matrix(row: int) -> None:
    weight = random_weight(PARTS, "float16")
    y = np.zeros(PARTS.vocab, np.float32)
    y[row] = 1
    np.testing.assert_array_equal(linear_transposed(y, weight), weight.dequantize()[row])


def test_the_smallest_scales_keep_their_products() -> None:
    scales = np.full((3, 1), np.finfo(np.float32).smallest_normal)
    weight = Q4Weight(np.full((3, 4), 0xF9, np.uint8), scales)
    y = np.full((1, 3), 2.0**40, np.float32)
    assert_within_bound(linear_transposed(y, weight), y, weight)


def test_both_conventions_read_one_copy() -> None:
    weight = anew(random_weight(PRIME, "float16", "embedding"))
    y = random_x(2, PRIME.vocab)
    assert_within_bound(linear_transposed(y, weight), y, weight)
    linear(random_x(2, PRIME.embed_dim), weight)
    (resident,) = weight.residents
    assert "rows," in resident.describe()
    assert "linear, linear_transposed" in resident.describe()


def test_more_rows_than_a_binding_holds(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_weight(PRIME, "float32")
    y = random_x(7, PRIME.vocab)
    context.weight(weight)
    row_bytes = PRIME.vocab * 4
    limits = {**context.limits, "max-storage-buffer-binding-size": 3 * row_bytes}
    monkeypatch.setattr(context, "limits", limits)
    assert_within_bound(linear_transposed(y, weight), y, weight)
    limits["max-storage-buffer-binding-size"] = row_bytes - 1
    with pytest.raises(DeviceLimitError, match="one row of y"):
        linear_transposed(y, weight)


def test_kinds_shapes_and_dtypes() -> None:
    weight = random_weight(ODD, "float32")
    y = random_x(2, 3, ODD.vocab)
    expected = linear_transposed(y, weight)
    assert expected.shape == (2, 3, ODD.embed_dim)
    given = torch.from_numpy(y)
    assert torch.equal(linear_transposed(given, weight), torch.from_numpy(expected))
    half = linear_transposed(given.bfloat16(), weight)
    assert half.dtype == torch.bfloat16
    assert linear_transposed(y[:0], weight).shape == (0, 3, ODD.embed_dim)
    assert linear_transposed([1.0] * ODD.vocab, weight).shape == (ODD.embed_dim,)


def test_what_does_not_fit_is_refused() -> None:
    weight = random_weight(ODD, "float32")
    with pytest.raises(ValueError, match=r"y must have shape \[\.\.\., 13\]"):
        linear_transposed(random_x(2, ODD.embed_dim), weight)
    with pytest.raises(TypeError, match="float64: convert with"):
        linear_transposed(np.ones((1, ODD.vocab)), weight)
    with pytest.raises(TypeError, match="must be a Q4Weight"):
        linear_transposed(np.ones((1, 3), np.float32), np.ones((3, 8)))  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="asks for a gradient"):
        linear_transposed(torch.ones(ODD.vocab, requires_grad=True), weight)
