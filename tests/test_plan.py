"""Which kernel, which constants, which grid: decided by arithmetic alone, so tested without a GPU.

What a plan promises is that its workgroups, with its constants, reach every output, and that the
device has room for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import ceil, prod
from typing import Any, get_args

import pytest

from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.kernels import Layout, LinearKernel, OutputDtype, Storage
from wgpu_q4.plan import (
    DEFAULT_LAYOUT,
    GEMM_FROM_ROWS,
    GEMM_FROM_ROWS_OTHERWISE,
    HalfSupport,
    LinearPlan,
    MatrixShape,
    Plan,
    fold,
    plan_embedding,
    plan_linear,
    plan_pack,
)

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def limits(
    *, workgroup_bytes: int = 16384, invocations: int = 256, workgroups: int = 65535
) -> dict[str, int]:
    """A device's limits; by default those that WebGPU grants everywhere."""
    return {
        "max-compute-workgroup-storage-size": workgroup_bytes,
        "max-compute-invocations-per-workgroup": invocations,
        "max-compute-workgroups-per-dimension": workgroups,
    }


WEBGPU = limits()
LLVMPIPE = limits(workgroup_bytes=32768, invocations=1024)
SWIFTSHADER = limits(workgroup_bytes=32768)
H200 = limits(workgroup_bytes=49152, invocations=1024)
FEW_WORKGROUPS = limits(workgroups=100)

NONE = HalfSupport()
SUBNORMALS = HalfSupport(subnormals=True)
NATIVE = HalfSupport(subnormals=True, rounding=True)

LLAMA = MatrixShape(128256, 2048, 32, "float16")
SHAPES = [
    LLAMA,
    MatrixShape(49152, 576, 32, "float16"),  # SmolLM2-135M: 18 chunks of 32, no power of two
    MatrixShape(1, 8, 8, "float32"),  # the smallest there is
    MatrixShape(13, 24, 8, "float16"),
    MatrixShape(257, 72, 24, "float32"),
    MatrixShape(101, 96, 32, "float16"),
    MatrixShape(7, 4096, 128, "float16"),  # fewer rows than a strip of blocks has
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def linear(
    shape: MatrixShape = LLAMA,
    rows: int = 1,
    layout: Layout = "rows",
    device: Mapping[str, int] = WEBGPU,
    support: HalfSupport = SUBNORMALS,
    kernel: LinearKernel | None = None,
) -> LinearPlan:
    return plan_linear(shape, rows, layout, False, device, support, kernel)


def kernel_of(plan: LinearPlan) -> str:
    """``gemv`` of ``linear_q4gsw_gemv_rows_float16_scales``."""
    name = plan.product.variant.name.removeprefix("linear_q4gsw_")
    named: list[str] = [k for k in get_args(LinearKernel) if name.startswith(f"{k}_")]
    return max(named, key=len)


# Folding a grid


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


# Which kernel


@pytest.mark.parametrize("rows", [1, 2, GEMM_FROM_ROWS - 1])
def test_few_rows_take_a_gemv(rows: int) -> None:
    assert kernel_of(linear(rows=rows)) == "gemv_wide_subnormal"
    assert kernel_of(linear(rows=rows, support=NATIVE)) == "gemv_wide_subnormal"
    assert kernel_of(linear(rows=rows, support=NONE)) == "gemv_wide"
    assert kernel_of(linear(rows=rows, support=HalfSupport(rounding=True))) == "gemv_wide"


@pytest.mark.parametrize("rows", [1, 2, GEMM_FROM_ROWS_OTHERWISE - 1])
def test_few_rows_take_the_plain_gemv_elsewhere(rows: int) -> None:
    for layout in LAYOUTS:
        if layout != "rows":
            assert kernel_of(linear(rows=rows, layout=layout)) == "gemv"
            assert kernel_of(linear(rows=GEMM_FROM_ROWS_OTHERWISE, layout=layout)) == "gemm"


@pytest.mark.parametrize("rows", [GEMM_FROM_ROWS, 500])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_rows_take_the_gemm(rows: int, layout: Layout) -> None:
    plan = linear(rows=rows, layout=layout)
    assert kernel_of(plan) == "gemm"
    assert plan.transpose is not None
    assert rows <= plan.padded_rows < rows + plan.product.constants["TILE_M"]


def test_only_the_gemm_transposes() -> None:
    for rows, layout in product((1, GEMM_FROM_ROWS_OTHERWISE - 1), LAYOUTS):
        plan = linear(rows=rows, layout=layout)
        assert (plan.transpose, plan.padded_rows) == (None, 0)


@pytest.mark.parametrize(("embed_dim", "group_size"), [(24, 24), (40, 8), (64, 16), (96, 24)])
def test_narrow_shapes_take_the_plain_gemv(embed_dim: int, group_size: int) -> None:
    """The wide ones read 32 columns at a time and give all of them one scale."""
    shape = MatrixShape(50, embed_dim, group_size, "float16")
    assert kernel_of(linear(shape)) == "gemv"


def test_the_default_layout_has_the_wide_kernels() -> None:
    assert kernel_of(linear(layout=DEFAULT_LAYOUT)).startswith("gemv_wide")


@pytest.mark.parametrize("support", [NONE, SUBNORMALS, HalfSupport(rounding=True), NATIVE])
def test_halves_are_converted_by_functions_only_where_both_are_right(support: Any) -> None:
    halves = "half/native" if support == NATIVE else "half/integer"
    assert support.halves == halves.removeprefix("half/")
    embedding = plan_embedding(LLAMA, 1, "rows", "float16", "buffer", WEBGPU, support)
    for plan in (embedding, linear(support=support).product):
        assert [piece for piece in plan.variant.pieces if piece.startswith("half/")] == [halves]


def test_a_kernel_that_cannot_do_it_is_refused() -> None:
    narrow = MatrixShape(50, 64, 16, "float16")
    wides: tuple[LinearKernel, ...] = ("gemv_wide", "gemv_wide_subnormal")
    for kernel in wides:
        with pytest.raises(ValueError, match=rf"^{kernel} needs .*'rows'.* multiples of 32"):
            linear(narrow, kernel=kernel)
        with pytest.raises(ValueError, match=rf"^{kernel} needs the layout 'rows'"):
            linear(layout="blocks_buffer", kernel=kernel)
        with pytest.raises(ValueError, match=rf"^{kernel} needs the layout 'rows'"):
            linear(layout="rows_embedding", kernel=kernel)
    with pytest.raises(ValueError, match="keeps half-precision subnormals"):
        linear(kernel="gemv_wide_subnormal", support=NONE)


@pytest.mark.parametrize("kernel", get_args(LinearKernel))
def test_a_kernel_can_be_asked_for_by_name(kernel: LinearKernel) -> None:
    for rows in (1, 500):
        assert kernel_of(linear(rows=rows, kernel=kernel)) == kernel


# The tile of the GEMM


def tile(rows: int, device: Mapping[str, int]) -> tuple[int, int]:
    constants = linear(rows=rows, device=device).product.constants
    return constants["TILE_M"], constants["TILE_N"]


@pytest.mark.parametrize(
    ("rows", "device", "expected"),
    [
        # Rows fill a tile by more than half.
        (17, H200, (32, 128)),
        (32, H200, (32, 128)),
        (33, H200, (64, 128)),
        (64, H200, (64, 128)),
        (65, H200, (128, 128)),
        (4096, H200, (128, 128)),
        # 128 × 128 takes 17,408 bytes and 256 invocations.
        (4096, LLVMPIPE, (128, 128)),
        (4096, SWIFTSHADER, (128, 128)),
        (4096, WEBGPU, (64, 128)),
        (33, WEBGPU, (64, 128)),
        (32, WEBGPU, (32, 128)),
        (4096, limits(workgroup_bytes=17407), (64, 128)),
        (4096, limits(workgroup_bytes=17408), (128, 128)),
        (4096, limits(workgroup_bytes=32768, invocations=255), (64, 128)),
        (4096, limits(workgroup_bytes=32768, invocations=127), (32, 128)),
    ],
)
def test_tile(rows: int, device: Mapping[str, int], expected: tuple[int, int]) -> None:
    assert tile(rows, device) == expected


@pytest.mark.parametrize(
    "device",
    [WEBGPU, LLVMPIPE, SWIFTSHADER, H200],
    ids=["webgpu", "llvmpipe", "swiftshader", "h200"],
)
@pytest.mark.parametrize("rows", [17, 31, 33, 65, 129, 1000])
def test_a_tile_fits_its_device(rows: int, device: Mapping[str, int]) -> None:
    constants = linear(rows=rows, device=device).product.constants
    tile_m, tile_n = constants["TILE_M"], constants["TILE_N"]
    assert constants["INVOCATIONS"] == tile_m // 8 * (tile_n // 8)
    assert constants["INVOCATIONS"] <= device["max-compute-invocations-per-workgroup"]
    # Two tiles of 4-row vectors, 16 columns and one more for the banks.
    staged = (tile_m // 4 + tile_n // 4) * 17 * 16
    assert staged <= device["max-compute-workgroup-storage-size"]


# Teams: lanes that share a row


def team(shape: MatrixShape, kernel: LinearKernel, layout: Layout = "rows") -> int:
    return linear(shape, layout=layout, kernel=kernel).product.constants["TEAM"]


@pytest.mark.parametrize(
    ("embed_dim", "expected"),
    [
        (8, 1),  # one word
        (16, 2),
        (24, 4),  # three words: one lane of four idle
        (40, 2),  # five: four lanes would idle three of eight turns
        (72, 4),  # nine: 4 lanes idle three of twelve, 8 would idle seven of sixteen
        (576, 32),  # 72 words: 24 of 96 idle
        (2048, 32),
        (8192, 32),
    ],
)
def test_team(embed_dim: int, expected: int) -> None:
    assert team(MatrixShape(50, embed_dim, 8, "float16"), "gemv") == expected


def test_no_more_than_a_quarter_of_a_team_is_idle() -> None:
    def idle(lanes: int, words: int) -> float:
        return 1 - words / (ceil(words / lanes) * lanes)

    for words in range(1, 130):
        chosen = team(MatrixShape(50, 8 * words, 8, "float16"), "gemv")
        assert chosen in (1, 2, 4, 8, 16, 32)
        assert idle(chosen, words) <= 0.25
        assert all(idle(wider, words) > 0.25 for wider in (2, 4, 8, 16, 32) if wider > chosen)


@pytest.mark.parametrize("embed_dim", [32, 64, 96, 160, 576, 2048])
def test_a_wide_team_has_at_least_four_lanes(embed_dim: int) -> None:
    """They add up four slots at a time."""
    chosen = team(MatrixShape(50, embed_dim, 32, "float16"), "gemv_wide")
    assert chosen in (4, 8, 16, 32)


@pytest.mark.parametrize("group_size", [8, 16, 24, 32, 40, 128])
def test_blocks_that_a_lane_takes_at_once_lie_in_one_group(group_size: int) -> None:
    shape = MatrixShape(50, group_size * 16, group_size, "float16")
    for layout in LAYOUTS:
        if layout.startswith("blocks"):
            columns = (
                4 * linear(shape, layout=layout, kernel="gemv").product.constants["LANE_BLOCKS"]
            )
            assert group_size % columns == 0
            assert shape.embed_dim % columns == 0


# Every output has a workgroup


def check_grid(plan: Plan, needed: int, device: Mapping[str, int]) -> None:
    """Workgroups for all, none twice but for the last row of a folded grid."""
    x, y, z = plan.workgroups
    assert z == 1
    assert max(x, y) <= device["max-compute-workgroups-per-dimension"]
    assert needed <= x * y < needed + y, f"{plan.variant.name}: {x} × {y} for {needed}"


def outputs_per_workgroup(plan: Plan) -> int:
    """Outputs of one row of x that a workgroup of a GEMV computes, 128 lanes in teams."""
    teams = 128 // plan.constants["TEAM"]
    each = {"gemv_rows": 1, "gemv_blocks": 8}
    bodies = [each[p.removeprefix("linear/")] for p in plan.variant.pieces if p[7:] in each]
    return teams * (bodies[0] if bodies else plan.constants["TEAM_ROWS"])


@every_shape
@pytest.mark.parametrize("device", [WEBGPU, LLVMPIPE], ids=["webgpu", "llvmpipe"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 3, 12, 13, 70, 1000])
def test_linear_covers_every_output(
    shape: MatrixShape, rows: int, layout: Layout, device: Mapping[str, int]
) -> None:
    plan = linear(shape, rows, layout, device)
    constants = plan.product.constants
    assert {k: constants[k] for k in shape.constants} == shape.constants
    if plan.transpose is None:
        outputs = outputs_per_workgroup(plan.product)
        check_grid(plan.product, ceil(shape.vocab / outputs) * rows, device)
        assert prod(plan.product.workgroups) * outputs >= shape.vocab * rows
    else:
        tile_m, tile_n = constants["TILE_M"], constants["TILE_N"]
        assert plan.padded_rows == ceil(rows / tile_m) * tile_m
        check_grid(plan.product, plan.padded_rows // tile_m * ceil(shape.vocab / tile_n), device)
        # 64 invocations move 4 × 4 values each.
        check_grid(plan.transpose, ceil(plan.padded_rows * shape.embed_dim / 16 / 64), device)
        assert plan.transpose.constants == shape.constants


@every_shape
@pytest.mark.parametrize("ids", [1, 7, 2047, 100_000])
def test_embedding_covers_every_output(shape: MatrixShape, ids: int) -> None:
    storages: tuple[Storage, ...] = get_args(Storage)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    for layout, storage, output in product(LAYOUTS, storages, outputs):
        plan = plan_embedding(shape, ids, layout, output, storage, WEBGPU, NATIVE)
        assert plan.constants == shape.constants
        # 256 invocations write 2 × 4 values each.
        check_grid(plan, ceil(ids * shape.embed_dim / 2048), WEBGPU)


@every_shape
@pytest.mark.parametrize("layout", ["blocks_buffer", "blocks_texture2d"])
def test_packing_covers_every_block(shape: MatrixShape, layout: Layout) -> None:
    plan = plan_pack(shape, layout, WEBGPU)
    assert plan.constants == shape.constants
    # 64 invocations pack 8 rows × 8 columns each; the last rows may be padding.
    check_grid(plan, ceil(ceil(shape.vocab / 8) * shape.embed_dim / 8 / 64), WEBGPU)


def test_grids_are_folded_by_the_limit_of_the_device() -> None:
    shape = MatrixShape(331, 72, 24, "float16")
    embedding = plan_embedding(shape, 9999, "rows", "float32", "buffer", FEW_WORKGROUPS, NATIVE)
    gemv = linear(shape, 11, device=FEW_WORKGROUPS)
    gemm = linear(shape, 5000, device=FEW_WORKGROUPS)
    assert gemm.transpose is not None
    for plan in (embedding, gemv.product, gemm.product, gemm.transpose):
        assert 1 < plan.workgroups[1] <= 100
        assert plan.workgroups[0] <= 100
    with pytest.raises(DeviceLimitError, match="workgroups exceed 100 × 100"):
        plan_embedding(shape, 10**6, "rows", "float32", "buffer", FEW_WORKGROUPS, NATIVE)


# What is compiled once


def test_a_plan_of_another_size_shares_the_pipeline() -> None:
    """The number of ids or rows is no constant: nothing is compiled for it."""
    few, many = (
        plan_embedding(LLAMA, ids, "rows", "float32", "buffer", WEBGPU, NATIVE) for ids in (1, 999)
    )
    assert few.workgroups != many.workgroups
    assert few.key == many.key
    assert linear(rows=1).product.key == linear(rows=12).product.key
    assert linear(rows=65).product.key == linear(rows=999).product.key


def test_plans_that_differ_in_a_constant_or_a_piece_share_nothing() -> None:
    devices, supports = (WEBGPU, LLVMPIPE), (NONE, SUBNORMALS, NATIVE)
    found = [
        linear(shape, rows, layout, device, support).product
        for shape, rows, layout, device, support in product(
            SHAPES, (1, 17, 33, 65), LAYOUTS, devices, supports
        )
    ]
    distinct = {(plan.variant.source, *sorted(plan.constants.items())) for plan in found}
    assert len({plan.key for plan in found}) == len(distinct) > 100
