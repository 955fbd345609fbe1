"""`reference.linear_bound` refuses what is wrong, and allows any order of summation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import LONG, ODD, PRIME, TINY, WHOLE, WIDE, Shape, random_weight, random_x
from tests.products import assert_within_bound
from wgpu_q4 import Q4Weight, reference


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
