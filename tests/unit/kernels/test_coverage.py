"""Every output has a workgroup, every buffer its bytes: by arithmetic alone, without a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product
from math import ceil, prod
from typing import get_args

import pytest

from tests.unit.kernels.planning import (
    ARITHMETIC,
    DEVICES,
    FEW_WORKGROUPS,
    LAYOUTS,
    LLAMA,
    NATIVE,
    SHAPES,
    WEBGPU,
    check_grid,
    every_plan,
    jobs,
    limits,
)
from wgpu_q4.kernels import (
    BLOCKS,
    MATRIX_UNITS,
    Dispatch,
    Layout,
    LinearPlan,
    MatrixShape,
    OutputDtype,
    Storage,
    plan_embedding,
    plan_linear,
    plan_pack,
    plan_reduce,
    plan_transposed,
)

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)

# Outputs of a matrix product


def linear_pieces(dispatch: Dispatch) -> set[str]:
    """The names of its pieces below ``linear/``."""
    return {piece.removeprefix("linear/") for piece in dispatch.shader.pieces}


def tile_of(dispatch: Dispatch) -> tuple[int, int]:
    """Rows of x and outputs of each that a workgroup of a matrix product computes."""
    constants, pieces = dispatch.constants, linear_pieces(dispatch)
    if "gemv/gemv_rows" in pieces:
        return 1, 128 // constants["TEAM"]
    if "gemv/gemv_blocks" in pieces:
        return 1, 128 // constants["TEAM"] * 8
    if "gemv_integers/gemv_blocks" in pieces:
        return 1, constants["INVOCATIONS"] // constants["TEAM"] * 8 * constants["TILES"]
    if "decoder/gemv/gemv" in dispatch.shader.pieces:
        return 1, constants["INVOCATIONS"] // constants["TEAM"] * constants["LANE_ROWS"]
    if "gemv/team" in pieces:
        teams = constants["INVOCATIONS"] // constants["TEAM"]
        return constants["X_ROWS"], teams * 4 * constants.get("TILES", 1)
    if "common/gemm_tile" in pieces:
        return constants["TILE_M"], 64
    (tile,) = (piece for piece in pieces if piece.startswith("matrix_units/tile_"))
    tile_rows, tile_outputs = map(int, tile.removeprefix("matrix_units/tile_").split("x"))
    subgroups = constants["SUBGROUPS_M"]
    return subgroups * tile_rows, 4 // subgroups * tile_outputs


@every_shape
def test_linear_covers_every_output(shape: MatrixShape) -> None:
    for device, rows in product(DEVICES, (1, 2, 3, 4, 7, 9, 12, 13, 49, 70, 1000)):
        for plan in every_plan(shape, rows, device):
            constants = plan.product.constants
            assert {k: constants[k] for k in shape.constants} == shape.constants
            rows_of_x, outputs = tile_of(plan.product)
            parts = ceil(rows / rows_of_x)
            check_grid(plan.product, parts * ceil(shape.vocab / outputs), device)
            assert prod(plan.product.workgroups) * rows_of_x * outputs >= shape.vocab * rows
            if plan.preparation is not None:
                assert plan.padded_rows == parts * rows_of_x
                check_preparation(plan, shape, device)


def check_preparation(plan: LinearPlan, shape: MatrixShape, device: Mapping[str, int]) -> None:
    """It writes every place of ``plan.x_bytes`` and ``plan.x_scale_bytes``, and no other."""
    assert plan.preparation is not None
    body = plan.preparation.shader.pieces[-1].rpartition("/")[2]
    constants, values = plan.preparation.constants, plan.padded_rows * shape.embed_dim
    if body == "transpose_x":  # 64 invocations move 4 × 4 values each
        check_grid(plan.preparation, ceil(values / 16 / 64), device)
        assert constants == shape.constants
        assert (plan.x_bytes, plan.x_scale_bytes) == (4 * values, 0)
    elif body in ("quantize_x", "quantize_columns"):  # 64 invocations take 32 columns each
        check_grid(plan.preparation, ceil(values / 32 / 64), device)
        planes = constants["PLANES"]
        assert constants == {**shape.constants, "PLANES": planes}
        words = 4 if plan.preparation.shader.name == "quantize_x_for_blocks" else 2
        assert plan.x_bytes == values * planes
        assert plan.x_scale_bytes == values // 32 * 4 * words
    else:  # a workgroup takes a row
        assert body == "halve_x"
        check_grid(plan.preparation, plan.padded_rows, device)
        padded_dim = ceil(shape.embed_dim / 64) * 64
        assert constants == {**shape.constants, "PADDED_DIM": padded_dim}
        assert plan.x_bytes == plan.padded_rows * padded_dim * 2
        assert plan.x_scale_bytes == plan.padded_rows * 4


def places(dispatch: Dispatch, shape: MatrixShape, rows: int) -> Counter[tuple[int, int]]:
    """How often each output (m, n) is computed, by the arithmetic of the kernels' bodies."""
    rows_of_x, outputs = tile_of(dispatch)
    parts = ceil(rows / rows_of_x)
    found: Counter[tuple[int, int]] = Counter()
    for flat in range(prod(dispatch.workgroups)):
        first_m, first_n = flat % parts * rows_of_x, flat // parts * outputs
        found.update(
            (m, n)
            for m in range(first_m, min(first_m + rows_of_x, rows))
            for n in range(first_n, min(first_n + outputs, shape.vocab))
        )
    return found


@pytest.mark.parametrize("workgroups", [65535, 50])
def test_every_output_is_computed_once(workgroups: int) -> None:
    """Folded grids too, whose last workgroups have nothing to do."""
    device = limits(workgroup_bytes=49152, workgroups=workgroups)
    for vocab, rows in product((1, 13, 101, 257, 1031), (1, 3, 17, 33)):
        shape = MatrixShape(vocab, 64, 32, "float16")
        for plan in every_plan(shape, rows, device):
            found = places(plan.product, shape, rows)
            assert len(found) == vocab * rows, plan.product.shader.name
            assert set(found.values()) == {1}, plan.product.shader.name


# Bytes that a kernel without bounds checks needs

UNCHECKED = {
    "gemv": ["blocks_buffer"],
    "gemv_wide": ["rows"],
    "gemv_wide_subnormal": ["rows"],
    "gemv_registers": ["rows"],
    "gemv_int16": ["rows", "blocks_buffer"],
    "gemv_int8": ["rows", "blocks_buffer"],
    "gemm": ["rows", "rows_embedding"],
    "gemm_int8": ["rows", "rows_embedding", "blocks_buffer"],
    "gemm_matrix": [],
}
"""The layouts on which a kernel gained from running unchecked."""


def layout_of(plan: LinearPlan) -> Layout:
    name = plan.product.shader.name.removeprefix(f"linear_q4gsw_{plan.kernel}_")
    return max((layout for layout in LAYOUTS if name.startswith(layout)), key=len)


def needs_of(shape: MatrixShape, rows: int, plan: LinearPlan, bias: bool) -> dict[str, int]:
    """Bytes of each binding of a product, counted value by value."""
    groups = shape.embed_dim // shape.group_size
    packed_rows = shape.vocab if layout_of(plan) not in BLOCKS else ceil(shape.vocab / 8) * 8
    scale_bytes = shape.vocab * groups * {"float16": 2, "float32": 4}[shape.scales]
    needs = {
        **({"sizes": 16} if plan.kernel != "gemv_registers" else {}),
        "t_out": rows * shape.vocab * 4,
        "t_x": plan.x_bytes if plan.preparation else rows * shape.embed_dim * 4,
        "t_weight": packed_rows * shape.embed_dim // 2,
        "t_scales": ceil(scale_bytes / 4) * 4,  # whole words
    }
    if bias:
        needs["t_bias"] = shape.vocab * 4
    if plan.x_scale_bytes:
        needs["t_x_scales"] = plan.x_scale_bytes
    return needs


@every_shape
def test_an_unchecked_kernel_says_what_it_needs(shape: MatrixShape) -> None:
    for rows, bias in product((1, 3, 8, 13, 70), (False, True)):
        for plan in every_plan(shape, rows, limits(workgroup_bytes=24064), bias=bias):
            if layout_of(plan) not in UNCHECKED[plan.kernel]:
                assert plan.product.needs is None
                continue
            assert plan.product.needs == needs_of(shape, rows, plan, bias)
            bound = {binding.name for binding in plan.product.shader.bindings}
            assert set(plan.product.needs) == bound, "a binding is not compared with anything"
            assert all(nbytes > 0 and nbytes % 4 == 0 for nbytes in plan.product.needs.values())


def test_what_reads_a_texture_or_depends_on_data_stays_checked() -> None:
    for rows in (1, 9, 70):
        for plan in every_plan(LLAMA, rows):
            kinds = {binding.kind for binding in plan.product.shader.bindings}
            assert plan.product.needs is None or kinds == {"buffer"}
            assert plan.preparation is None or plan.preparation.needs is None
    for layout in LAYOUTS:
        assert plan_embedding(LLAMA, 3, layout, "float32", "buffer", WEBGPU, NATIVE).needs is None
    assert plan_pack(LLAMA, "blocks_buffer", WEBGPU).needs is None
    assert all(stage.needs is None for stage in plan_reduce((999,), 3, "argmax", 1, WEBGPU).stages)


# The transposed product


@every_shape
def test_the_transposed_product_covers_every_column_and_every_row_of_the_weight(
    shape: MatrixShape,
) -> None:
    for rows, device in product((1, 4, 5, 300, 2000), (WEBGPU, FEW_WORKGROUPS)):
        plan = plan_transposed((shape,), rows, device, NATIVE)
        (transposed,), (sections,) = plan.products, plan.sections
        section = transposed.constants["SECTION"]
        assert (sections - 1) * section < shape.vocab <= sections * section
        tiles = ceil(rows / 4) * ceil(shape.embed_dim / 256)
        assert tiles * (sections - 1) < 1024 or sections == 1  # no more sections than help
        check_grid(transposed, tiles * sections, device)
        assert transposed.needs is None
        assert "Y_ROW" not in transposed.constants
        assert plan.section_bytes == sections * rows * shape.embed_dim * 4
        assert (plan.add is None) == (sections == 1)
        if plan.add is not None:
            check_grid(plan.add, ceil(rows * shape.embed_dim / 4 / 64), device)
            assert plan.add.needs is None


# The embedding and the packing


@every_shape
def test_embedding_covers_every_output(shape: MatrixShape) -> None:
    storages: tuple[Storage, ...] = get_args(Storage)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    for ids, layout, storage, output in product((1, 7, 2047, 100_000), LAYOUTS, storages, outputs):
        plan = plan_embedding(shape, ids, layout, output, storage, WEBGPU, NATIVE)
        assert plan.constants == shape.constants
        # 128 invocations write 2 × 16 bytes each, or two texels of 4 values.
        values = 8 if (storage, output) == ("buffer", "float16") else 4
        assert ("embedding/vectors_of_eight" in plan.shader.pieces) == (values == 8)
        check_grid(plan, ceil(ids * shape.embed_dim / (128 * 2 * values)))


@every_shape
def test_packing_covers_every_block(shape: MatrixShape) -> None:
    for layout in BLOCKS:
        plan = plan_pack(shape, layout, WEBGPU)
        assert plan.constants == shape.constants
        # 64 invocations pack 8 rows × 8 columns each; the last rows may be padding.
        check_grid(plan, ceil(ceil(shape.vocab / 8) * shape.embed_dim / 8 / 64))


# A weight in parts


@every_shape
def test_products_of_parts_are_columns_of_a_wider_result(shape: MatrixShape) -> None:
    """A kernel without checks needs the last row of x up to the part's last column, and no more."""
    wide = 3 * shape.vocab + 1
    for rows, kernel, layout, bias in (
        (count, *job, with_bias)
        for count, with_bias in product((1, 3, 70), (False, True))
        for job in jobs(shape, count)
    ):
        plans = [
            plan_linear(
                *(shape, rows, layout, bias, WEBGPU, ARITHMETIC, kernel),
                matrix_units=[MATRIX_UNITS],
                result_row=row,
                subgroup=32,
            )
            for row in (None, shape.vocab, wide)
        ]
        alone, same, part = (plan.product for plan in plans)
        assert alone == same
        assert part.constants == {**alone.constants, "RESULT_ROW": wide}
        assert part.workgroups == alone.workgroups
        if part.needs is not None:
            assert part.needs == {
                **(alone.needs or {}),
                "t_out": ((rows - 1) * wide + shape.vocab) * 4,
            }


def test_reductions_of_parts_fill_one_row_of_candidates() -> None:
    for kept in (1, 40, 1024):
        plan = plan_reduce((5000, 5000, 3), 7, "top_k", kept, WEBGPU)
        slices = [ceil(5000 / stage.constants["SLICE"]) for stage in plan.first[:2]]
        assert [stage.constants["COLUMNS"] for stage in plan.first] == [5000, 5000, 3]
        assert plan.first_slots == (0, slices[0], sum(slices))
        assert plan.slots == sum(slices) + 1
        assert all(stage.constants["SLICE"] >= kept for stage in plan.stages)
        assert plan.later[0].constants["COLUMNS"] == plan.slots * kept
        assert plan.stage_bytes[0] == 7 * plan.slots * kept * 8


def test_sections_of_parts_are_added_up_together() -> None:
    shapes = tuple(MatrixShape(vocab, 264, 24, "float16") for vocab in (640, 640, 63))
    plan = plan_transposed(shapes, 3, WEBGPU, NATIVE)
    assert [each.constants["Y_ROW"] for each in plan.products] == [1343] * 3
    for count, each, shape in zip(plan.sections, plan.products, shapes, strict=True):
        section = each.constants["SECTION"]
        assert (count - 1) * section < shape.vocab <= count * section
    assert plan.add is not None
    assert plan.section_bytes == sum(plan.sections) * 3 * 264 * 4
