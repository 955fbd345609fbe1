"""A dispatch: grids that are folded, and what is compiled once."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest

from tests.unit.kernels.planning import (
    ACCURACIES,
    EXACT_WIDE,
    FEW_WORKGROUPS,
    H200,
    LAYOUTS,
    LLAMA,
    NATIVE,
    NONE,
    SHAPES,
    SUBNORMALS,
    WEBGPU,
    dispatches,
    every_plan,
    jobs,
    limits,
    linear,
)
from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.kernels import LINEAR_KERNELS, Dispatch, MatrixShape, fold, plan_embedding

# Folding


@pytest.mark.parametrize("limit", [1, 2, 7, 10])
def test_every_grid_that_fits_is_folded_with_little_to_spare(limit: int) -> None:
    device = limits(workgroups=limit)
    for needed in range(1, limit * limit + 1):
        x, y, z = fold(needed, device)
        assert z == 1
        assert 1 <= x <= limit
        assert 1 <= y <= limit
        assert needed <= x * y < needed + y
    with pytest.raises(DeviceLimitError, match=rf"{limit * limit + 1} workgroups .* {limit} × "):
        fold(limit * limit + 1, device)


def test_a_grid_is_folded_only_where_it_must_be() -> None:
    assert fold(65535, WEBGPU) == (65535, 1, 1)
    assert fold(65536, WEBGPU) == (32768, 2, 1)
    assert fold(65535**2, WEBGPU) == (65535, 65535, 1)
    with pytest.raises(DeviceError):
        fold(65535**2 + 1, WEBGPU)


def test_grids_are_folded_by_the_limit_of_the_device() -> None:
    shape = MatrixShape(331, 72, 24, "float16")
    embedding = plan_embedding(shape, 9999, "rows", "float32", "buffer", FEW_WORKGROUPS, NATIVE)
    gemv = linear(shape, 11, device=FEW_WORKGROUPS, kernel="gemv")
    gemm = linear(shape, 5000, device=FEW_WORKGROUPS)
    for dispatch in (embedding, gemv.product, *dispatches(gemm)):
        assert 1 < dispatch.workgroups[1] <= 100
        assert dispatch.workgroups[0] <= 100
    with pytest.raises(DeviceLimitError, match="workgroups exceed 100 × 100"):
        plan_embedding(shape, 10**6, "rows", "float32", "buffer", FEW_WORKGROUPS, NATIVE)


def test_every_kernel_folds_its_grid() -> None:
    for kernel, layout in jobs(MatrixShape(3331, 96, 32, "float16"), 1):
        takes_many = LINEAR_KERNELS[kernel].most_rows is None
        shape = MatrixShape(3331 if takes_many else 7331, 96, 32, "float16")
        # As many rows as need more than 100 workgroups, which differ from kernel to kernel.
        rows = next(
            rows
            for rows in ((20, 60, 200, 1000, 5000) if takes_many else (1,))
            if prod(linear(shape, rows, layout, kernel=kernel).product.workgroups) > 100
        )
        folded = linear(shape, rows, layout, FEW_WORKGROUPS, kernel=kernel)
        assert folded.product.workgroups[1] > 1
        for dispatch in dispatches(folded):
            assert max(dispatch.workgroups) <= 100


# What is compiled once


def test_a_plan_of_another_size_shares_the_pipeline() -> None:
    """The number of ids or rows is no constant: nothing is compiled for it."""
    few, many = (
        plan_embedding(LLAMA, ids, "rows", "float32", "buffer", WEBGPU, NATIVE) for ids in (1, 999)
    )
    assert few.workgroups != many.workgroups
    assert few.key == many.key
    keys = [
        [dispatch.key for plan in every_plan(LLAMA, rows, H200) for dispatch in dispatches(plan)]
        for rows in (129, 300, 1000)
    ]
    assert keys[0] == keys[1] == keys[2]


def test_few_rows_are_four_pipelines_at_most() -> None:
    """Up to 8 rows of x at once: 1, 2, 4 or 8, however many rows there are."""
    for kernel in EXACT_WIDE:
        keys = {linear(rows=rows, kernel=kernel).product.key for rows in range(1, 49)}
        assert len(keys) == 4


def test_plans_that_differ_in_a_constant_or_a_piece_share_nothing() -> None:
    devices, supports = (WEBGPU, H200), (NONE, SUBNORMALS, NATIVE)
    found = [
        linear(shape, rows, layout, device, support, None, accuracy).product
        for shape, rows, layout, device, support, accuracy in product(
            SHAPES, (1, 2, 17, 33, 65), LAYOUTS, devices, supports, ACCURACIES
        )
    ]
    distinct = {
        (plan.shader.source, plan.needs is None, *sorted(plan.constants.items())) for plan in found
    }
    assert len({plan.key for plan in found}) == len(distinct) > 100


def test_checked_and_unchecked_are_two_pipelines() -> None:
    plan = linear().product
    assert plan.needs is not None
    checked = Dispatch(plan.shader, plan.constants, plan.workgroups)
    assert checked.key != plan.key
    scarce = Dispatch(plan.shader, plan.constants, plan.workgroups, {"t_out": 4})
    assert scarce.key == plan.key  # how large a buffer is makes no other code
