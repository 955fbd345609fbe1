"""4-bit matrices with any zero points: held exactly, or refused with what would be lost."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.grid import Grid, hold, zeros_of_offsets
from wgpu_q4.weight import Q4Weight

V, K, G = 13, 48, 16


def packed_of(u: NDArray[Any]) -> NDArray[np.uint8]:
    packed: NDArray[np.uint8] = (u[:, ::2] | u[:, 1::2] << 4).astype(np.uint8)
    return packed


def values_of(u: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any]) -> NDArray[np.float64]:
    groups = u.reshape(*scales.shape, -1) - zeros[..., None].astype(np.float64)
    return (groups * scales[..., None].astype(np.float64)).reshape(u.shape)


def random_grid(
    low: int, high: int, zero: float, dtype: str = "float16"
) -> tuple[Grid, NDArray[np.float64]]:
    """Nibbles from ``low`` to ``high``, and their values by the definition, in float64."""
    rng = np.random.default_rng(1)
    u = rng.integers(low, high + 1, (V, K))
    scales = rng.uniform(0.01, 2, (V, K // G)).astype(dtype)
    zeros = np.full(scales.shape, float(zero))
    return Grid(packed_of(u), scales, zeros), values_of(u, scales, zeros)


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(0, 15, 8), (0, 12, 5), (3, 15, 11), (0, 15, 7), (0, 0, 0), (0, 7, 0)]
)
@pytest.mark.usefixtures("ranges")
def test_values_around_any_zero_that_fit_are_held(low: int, high: int, zero: int) -> None:
    grid, values = random_grid(low, high, zero)
    weight = hold(grid)
    np.testing.assert_array_equal(weight.dequantize(), values)
    assert weight.scales.dtype == np.float16
    assert weight.group_size == G


def test_a_range_from_minus_7_to_8_has_its_scale_negated() -> None:
    grid, _ = random_grid(0, 15, 7)
    assert (hold(grid).scales < 0).any()


def test_bytes_around_8_are_not_copied() -> None:
    grid, _ = random_grid(0, 15, 8)
    for zeros in (None, grid.zeros):
        assert np.shares_memory(hold(Grid(grid.packed, grid.scales, zeros)).packed, grid.packed)


@pytest.mark.parametrize("zero", [3, 15, 16, 7.5])
def test_what_does_not_fit_says_how_much_quantizing_again_moves(zero: float) -> None:
    grid, values = random_grid(0, 15, zero)
    with pytest.raises(FormatError, match="cannot hold this matrix exactly") as caught:
        hold(grid)
    assert "39 of its 39 groups hold values beyond −8…7 around" in str(caught.value)
    assert f"zero points, which are from {zero:g} to {zero:g}" in str(caught.value)
    weight = hold(grid, lossy=True)
    expected = Q4Weight.quantize(values.astype(np.float32), 16)
    assert weight.same_matrix(expected)
    percent = re.search(r"by ([\d.]+) % of their rms: give lossy=True", str(caught.value))
    assert percent is not None
    off = ((weight.dequantize() - values) ** 2).mean() ** 0.5 / (values**2).mean() ** 0.5
    assert abs(float(percent[1]) - 100 * off) < 0.06


def test_groups_that_are_no_multiple_of_8() -> None:
    rng = np.random.default_rng(2)
    u, scales = rng.integers(0, 16, (V, K)), rng.uniform(1, 2, (V, 12)).astype(np.float16)
    grid = Grid(packed_of(u), scales)
    with pytest.raises(FormatError, match=r"its groups have 4 values\..* again in groups of 16"):
        hold(grid)
    assert hold(grid, lossy=True, group_size=24).group_size == 24


def test_smaller_groups_repeat_the_scales() -> None:
    grid, values = random_grid(0, 15, 8)
    weight = hold(grid, group_size=8)
    assert weight.group_size == 8
    np.testing.assert_array_equal(weight.dequantize(), values)
    with pytest.raises(FormatError, match="its groups have 16 values, which groups of 24 do not"):
        hold(grid, group_size=24)
    assert hold(grid, group_size=24, lossy=True).group_size == 24


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scales_beyond_half_precision_are_kept_in_single(dtype: str) -> None:
    grid, values = random_grid(0, 15, 8, "float32")
    grid = Grid(grid.packed, grid.scales.astype(dtype))
    weight = hold(grid)
    assert weight.scales.dtype == np.float32
    np.testing.assert_array_equal(weight.dequantize(), values.astype(np.float32))
    message = (
        r"39 of its 39 scales are no float16 numbers; rounding them moves values by up to (\S+) of"
    )
    with pytest.raises(FormatError, match=message) as caught:
        hold(grid, "float16")
    rounded = hold(grid, "float16", lossy=True)
    assert rounded.scales.dtype == np.float16
    off = np.abs(rounded.scales / grid.scales.astype(np.float64) - 1).max()
    assert f"{off:.2g} of" in str(caught.value)


def test_scales_that_half_precision_has_are_kept_in_half() -> None:
    grid, _ = random_grid(0, 15, 8)
    single = Grid(grid.packed, grid.scales.astype(np.float32))
    assert hold(single).scales.dtype == np.float16
    assert hold(single, "float32").scales.dtype == np.float32


def test_a_scale_that_is_not_finite_is_refused_by_name() -> None:
    grid, _ = random_grid(0, 15, 8)
    grid.scales[2, 1] = np.nan
    with pytest.raises(FormatError, match=r"scales\[2, 1\] is nan"):
        hold(grid)


@pytest.mark.parametrize(
    ("packed", "scales", "zeros"),
    [
        ((4, 8), (4, 3), None),
        ((4, 8), (3, 2), None),
        ((8,), (1, 1), None),
        ((4, 8), (4, 2), (4, 1)),
    ],
)
def test_shapes_that_do_not_fit(packed: Any, scales: Any, zeros: Any) -> None:
    with pytest.raises(FormatError, match=r"scales|shapes"):
        Grid(
            np.zeros(packed, np.uint8),
            np.ones(scales, np.float32),
            None if zeros is None else np.zeros(zeros),
        )


def test_offsets_are_zeros_times_the_scale() -> None:
    scales = np.array([[0.1, 0.3, 0.0, 0.7, -0.5]], np.float32)
    offsets = np.array([[-0.8, 0.0, 0.0, -0.7, 4.0]], np.float32)
    zeros = zeros_of_offsets(scales, offsets)
    np.testing.assert_array_equal(zeros, [[8, 0, 0, 1, 8]])
    almost = np.nextafter(offsets, np.float32(9))
    assert (zeros_of_offsets(scales, almost)[0, [0, 3, 4]] % 1 != 0).all()
