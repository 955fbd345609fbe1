"""The oracle: what the ops must compute, in plain numpy and float64, and how exactly.

Written to be obviously right and used by tests, the parity harness and nothing fast.  It shares no
code with `wgpu_q4.format` or the kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.weight import Q4Weight

FLOAT32_UNIT = 2.0**-24
"""Half the spacing of float32 at 1: the relative error of one rounding."""

FLOAT16_UNIT = 2.0**-11
"""Half the spacing of float16 at 1."""

FLOAT16_SUBNORMAL_UNIT = 2.0**-25
"""Half the spacing of float16's subnormals: the absolute error of rounding to one."""


def matrix(weight: Q4Weight) -> NDArray[np.float64]:
    """``(u − 8) · scale`` exactly, float64 ``[V, K]``."""
    low = (weight.packed & 0x0F).astype(np.float64)
    high = (weight.packed >> 4).astype(np.float64)
    even, odd = (low, high) if weight.convention == "linear" else (high, low)
    values = np.empty(weight.shape)
    values[:, 0::2], values[:, 1::2] = even - 8, odd - 8
    return values * np.repeat(weight.scales.astype(np.float64), weight.group_size, axis=1)


def embedding(indices: NDArray[Any], weight: Q4Weight, dtype: str = "float32") -> NDArray[Any]:
    """The rows of `matrix`, rounded to float32, then to ``dtype``: exact, bit for bit.

    Two roundings, as the kernels do them: the product is a float32, and float16 is made of that.
    """
    rows, places = np.unique(indices, return_inverse=True)
    part = Q4Weight(weight.packed[rows], weight.scales[rows], weight.convention)
    with np.errstate(over="ignore"):
        exact = matrix(part).astype(np.float32).astype(dtype)
    return np.asarray(exact[places.reshape(indices.shape)])


def linear(
    x: NDArray[Any], weight: Q4Weight, bias: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """``x · Wᵀ + bias`` in float64."""
    product = x.astype(np.float64) @ matrix(weight).T
    return product if bias is None else product + bias.astype(np.float64)


def linear_bound(
    x: NDArray[Any],
    weight: Q4Weight,
    bias: NDArray[Any] | None = None,
    integer_bits: int | None = None,
) -> NDArray[np.float64]:
    """How far a float32 result may be from `linear`: ``gamma · (|x| · |W|ᵀ + |bias|)``.

    ``gamma = n·u / (1 − n·u)`` with ``u = 2^−24`` bounds any order of summation of ``K`` products
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).  ``n = K + 4`` counts,
    besides the K − 1 additions, the roundings of the scaled weight, the product and the bias.

    Args:
        integer_bits: of the integers to which the kernel rounds x (`LinearKernel.integer_bits`),
            None for one that does not.  32 columns share a step ``s = max|x| / L``, ``L`` being 127
            for 8 bits and 32512 for 16, and ``|x − s·a| ≤ (1/2 + 2^-7) · s``; so the bound grows by
            ``(1/2 + 2^-7) · s · Σ|w|`` over each 32.  Columns below 1e-30 become zero.
    """
    roundings = (weight.shape[1] + 4) * FLOAT32_UNIT
    gamma = roundings / (1 - roundings)
    exact, sizes = np.abs(matrix(weight)), np.abs(x.astype(np.float64))
    products = sizes @ exact.T
    rounding: NDArray[np.float64] = np.zeros_like(products)
    if integer_bits is not None:
        levels = {8: 127, 16: 32512}[integer_bits]
        chunks = sizes.reshape(*sizes.shape[:-1], -1, 32).max(axis=-1)
        errors = np.maximum((0.5 + 2.0**-7) * chunks / levels, 1e-30 * (chunks < 2e-30))
        rounding = errors @ exact.reshape(exact.shape[0], -1, 32).sum(axis=-1).T
    added = 0 if bias is None else np.abs(bias.astype(np.float64))
    bound: NDArray[np.float64] = rounding + gamma * (products + rounding + added)
    return bound


def linear_transposed(y: NDArray[Any], weight: Q4Weight) -> NDArray[np.float64]:
    """``y · W`` in float64."""
    product: NDArray[np.float64] = y.astype(np.float64) @ matrix(weight)
    return product


def linear_transposed_bound(y: NDArray[Any], weight: Q4Weight) -> NDArray[np.float64]:
    """How far a float32 result may be from `linear_transposed`: ``gamma · |y| · |W|``.

    ``gamma = n·u / (1 − n·u)`` as in `linear_bound`.  Here ``V`` products are summed, in lanes and
    parts: ``n = V + 2`` counts the V − 1 additions in whatever order, the rounding of the scaled
    weight, that of the product, and the first addition to zero of each sum, which is exact.
    """
    roundings = (weight.shape[0] + 2) * FLOAT32_UNIT
    gamma = roundings / (1 - roundings)
    bound: NDArray[np.float64] = gamma * (np.abs(y.astype(np.float64)) @ np.abs(matrix(weight)))
    return bound


def matrix_units_bound(
    x: NDArray[Any], weight: Q4Weight, bias: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """How far a result from matrix units (kernel ``gemm_matrix``) may be from `linear`.

    Both factors are rounded to half precision, at powers of two that keep them within its range:
    a row of x at one that brings its largest value to 2^14 … 2^15, the weight at one that brings
    its largest scale to 2^11 … 2^12.  With ``u = 2^-11``:

    * ``x' = x (1 + d) + a``: ``|d| ≤ u``, and ``|a| ≤ 2^-25 · 2^-14 · max|x|`` of the row, where x'
      is subnormal;
    * ``w' = w (1 + d) + b``: ``|d| ≤ u`` for float16 scales, whose product with ``n − 8`` is
      rounded once, and ``(1 + u)² − 1`` for float32 ones, which are rounded before that too.
      Where scale or product is subnormal, ``|b| ≤ (8 + 1) · 2^-25 · 2^-11 · max|scale|``.

    Products of halves are exact in float32.  A matrix unit adds 16 of them and the sum so far at
    the exponent of the largest, and cuts off what lies below its last bit: an error of 2^-23 of the
    largest, at most, for each of the 17.  Over K' columns, K padded to steps of 64, that makes
    ``gamma = n·v / (1 − n·v)`` with ``n = 17/16 K'`` and ``v = 2^-23``.  The bias adds a rounding.
    """
    _, embed_dim = weight.shape
    exact, sizes = np.abs(matrix(weight)), np.abs(x.astype(np.float64))
    relative_x = FLOAT16_UNIT
    twice = weight.scales.dtype == np.float32
    relative_w = (1 + FLOAT16_UNIT) ** (2 if twice else 1) - 1
    tiny_x = FLOAT16_SUBNORMAL_UNIT * 2.0**-14 * sizes.max(axis=-1, keepdims=True, initial=0)
    largest_scale = float(np.abs(weight.scales.astype(np.float64)).max())
    tiny_w = 9 * FLOAT16_SUBNORMAL_UNIT * 2.0**-11 * largest_scale
    products = sizes @ exact.T
    rounded = (
        (1 + relative_x) * (1 + relative_w) * products
        + tiny_x * (1 + relative_w) * exact.sum(axis=1)
        + tiny_w * (1 + relative_x) * sizes.sum(axis=-1, keepdims=True)
        + embed_dim * tiny_x * tiny_w
    )
    roundings = 17 / 16 * (embed_dim + -embed_dim % 64) * 2 * FLOAT32_UNIT
    gamma = roundings / (1 - roundings)
    largest = (1 + gamma) * rounded + (0 if bias is None else np.abs(bias.astype(np.float64)))
    bound: NDArray[np.float64] = rounded - products + gamma * rounded + FLOAT32_UNIT * largest
    return bound
