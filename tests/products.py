"""What the tests of `linear` share: every kernel, integers whose sums are exact, and the bound."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import PRIME, WIDE, Shape, random_weight
from wgpu_q4 import Q4Weight, forced, linear, reference
from wgpu_q4.device import context_for
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import LINEAR_KERNELS, Layout

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

INTEGER_BITS = {
    name: kernel.integer_bits for name, kernel in LINEAR_KERNELS.items() if kernel.integer_bits
}
"""The bits of the integers to which kernels round x, for those that do."""

INTEGER_GEMVS: tuple[str, ...] = ("gemv_int16", "gemv_int8")
WIDE_LAYOUTS: tuple[Layout, ...] = ("rows", "blocks_buffer", "blocks_texture2d")

KERNELS: list[tuple[str, Layout, Shape, int]] = [
    *(("gemv", layout, PRIME, 3) for layout in LAYOUTS),
    *(("gemm", layout, PRIME, 13) for layout in LAYOUTS),
    ("gemv_wide", "rows", WIDE, 3),
    ("gemv_wide_subnormal", "rows", WIDE, 3),
    ("gemv_registers", "rows", WIDE, 1),
    *((name, layout, WIDE, 3) for name in INTEGER_GEMVS for layout in WIDE_LAYOUTS),
    *((name, layout, WIDE, 1) for name in INTEGER_GEMVS for layout in WIDE_LAYOUTS),
    *(("gemm_int8", layout, WIDE, 13) for layout in LAYOUTS),
]
"""Every kernel with every layout it reads, a shape that it has trouble with, and rows of x."""

every_kernel = pytest.mark.parametrize(
    ("kernel", "layout", "shape", "rows"), KERNELS, ids=lambda value: str(value)
)


def random_bias(shape: Shape) -> NDArray[np.float32]:
    return np.random.default_rng(6).standard_normal(shape.vocab).astype(np.float32)


def assert_within_bound(
    result: NDArray[Any],
    x: NDArray[Any],
    weight: Q4Weight,
    bias: NDArray[Any] | None = None,
    kernel: str | None = None,
) -> None:
    expected = reference.linear(x, weight, bias)
    assert (result.dtype, result.shape) == (np.dtype(np.float32), expected.shape)
    bits = None if kernel is None else INTEGER_BITS.get(kernel)
    excess = np.abs(result - expected) - reference.linear_bound(x, weight, bias, bits)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert not (excess > 0).any(), f"{result[worst]} at {worst} must be {expected[worst]}"
    assert np.isfinite(result).all()


@cache
def integer_weight(shape: Shape, scales_dtype: ScalesDtype) -> Q4Weight:
    """Scales are powers of two from 1/8 to 8, of either sign; row 2, if any, is all zeros."""
    rng = np.random.default_rng(7)
    packed = random_weight(shape, scales_dtype).packed.copy()
    packed[2:3] = 0x88
    size = shape.vocab, shape.embed_dim // shape.group_size
    scales = 2.0 ** rng.integers(-3, 4, size) * rng.choice([-1, 1], size)
    return Q4Weight(packed, scales.astype(scales_dtype))


def integer_x(rows: int, shape: Shape, kernel: str | None = None) -> NDArray[np.float32]:
    """Small integers, and for a kernel that rounds x a largest number in each 32 columns that makes
    its steps powers of two: 127/16 is 127 of 1/16 and 127 · 256 of 2^-12.

    With 16 bits x has multiples of 1/32, 128 of those steps, so that its low byte is not zero and
    its sign bit is set.
    """
    rng = np.random.default_rng(8)
    x = rng.integers(-8, 9, (rows, shape.embed_dim)).astype(np.float32)
    if kernel in INTEGER_BITS:
        columns = np.arange(0, shape.embed_dim, 32) + 7 * np.arange(rows)[:, None] % 32
        x = np.clip(x, -7, 7)
        if INTEGER_BITS[kernel] == 16:
            x += (rng.integers(-31, 32, x.shape) / 32).astype(np.float32)
            x = np.clip(x, -7.5, 7.5)
        np.put_along_axis(x, columns, -127 / 16, axis=1)
    return x


def run(
    kernel: str,
    layout: Layout,
    x: NDArray[Any],
    weight: Q4Weight,
    bias: NDArray[Any] | None = None,
) -> Any:
    """`linear` with this kernel.

    A device that flushes half-precision subnormals must refuse the one that needs them.
    """
    if kernel == "gemv_wide_subnormal" and not context_for().half_support.subnormals:
        with (
            pytest.raises(ValueError, match="device that keeps half-precision subnormals"),
            forced(layout=layout, kernel=kernel),
        ):
            linear(x, weight, bias)
        kernel = "gemv_wide"
    with forced(layout=layout, kernel=kernel):
        return linear(x, weight, bias)
