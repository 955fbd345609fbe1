"""When the kernel for matrix units is planned, and what its plan is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import ceil

import pytest

from tests.unit.kernels.planning import LLAMA, NATIVE, limits
from wgpu_q4.kernels import (
    MATRIX_UNITS,
    Accuracy,
    Layout,
    LinearPlan,
    MatrixShape,
    MatrixUnits,
    matrix_shaders,
    plan_linear,
)

SMALL = limits()
LARGE = limits(workgroup_bytes=49152)


def planned(
    shape: MatrixShape = LLAMA,
    rows: int = 500,
    layout: Layout = "rows",
    has: Mapping[str, int] = LARGE,
    accuracy: Accuracy = "fast",
    units: Collection[MatrixUnits] = (MATRIX_UNITS,),
    kernel: str | None = None,
) -> LinearPlan:
    return plan_linear(shape, rows, layout, False, has, NATIVE, kernel, accuracy, units)


def uses_units(plan: LinearPlan) -> bool:
    return plan.product.shader.name in {variant.name for variant in matrix_shaders()}


def test_matrix_units_are_used_where_accuracy_allows() -> None:
    assert not uses_units(planned(accuracy="exact"))
    assert uses_units(planned(accuracy="fast"))
    assert uses_units(planned(accuracy="int8"))
    assert uses_units(planned(layout="blocks_buffer"))
    assert not uses_units(planned(rows=1))


WRONG_UNITS = [
    replace(MATRIX_UNITS, m=8, n=8, k=8),
    replace(MATRIX_UNITS, n=8),
    replace(MATRIX_UNITS, sums="f16"),
    replace(MATRIX_UNITS, factors="u8", sums="u32"),
    # Its subgroups may have 64 lanes, of which the kernel would leave out every other.
    replace(MATRIX_UNITS, most_subgroup=64),
]


def test_other_units_are_left_alone() -> None:
    for units in ([], WRONG_UNITS):
        assert not uses_units(planned(units=units))
        with pytest.raises(
            ValueError, match=r"^gemm_matrix needs a device with matrix units .*Dawn"
        ):
            planned(units=units, kernel="gemm_matrix")
    assert uses_units(planned(units=[*WRONG_UNITS, MATRIX_UNITS]))


@pytest.mark.parametrize(
    ("shape", "layout", "has", "lacking"),
    [
        (MatrixShape(50, 64, 16, "float16"), "rows", LARGE, "K and G multiples of 32"),
        (MatrixShape(50, 72, 24, "float16"), "blocks_buffer", LARGE, "K and G multiples of 32"),
        (LLAMA, "rows_embedding", LARGE, "the layout 'rows' or 'blocks_buffer'"),
        (LLAMA, "blocks_texture2d", LARGE, "the layout 'rows' or 'blocks_buffer'"),
        (LLAMA, "rows", SMALL, ".* 24,064 bytes of workgroup memory"),
    ],
)
def test_what_matrix_units_cannot_do_goes_elsewhere(
    shape: MatrixShape, layout: Layout, has: Mapping[str, int], lacking: str
) -> None:
    assert not uses_units(planned(shape, layout=layout, has=has))
    with pytest.raises(ValueError, match=f"^gemm_matrix needs {lacking}"):
        planned(shape, layout=layout, has=has, kernel="gemm_matrix")


@pytest.mark.parametrize("embed_dim", [32, 64, 96, 2048, 2080])
@pytest.mark.parametrize("rows", [1, 5, 32, 33, 64, 65, 128, 129, 1000])
def test_matrix_units_cover_every_output(rows: int, embed_dim: int) -> None:
    shape = MatrixShape(257, embed_dim, 32, "float16")
    plan = planned(shape, rows, kernel="gemm_matrix")
    (tile,) = (p for p in plan.product.shader.pieces if p.startswith("linear/matrix_units/tile_"))
    tile_rows, tile_outputs = map(int, tile.removeprefix("linear/matrix_units/tile_").split("x"))
    subgroups = plan.product.constants["SUBGROUPS_M"]
    assert 4 // subgroups * tile_outputs == 128
    assert plan.padded_rows == ceil(rows / (tile_rows * subgroups)) * tile_rows * subgroups
    tiles = plan.padded_rows // (tile_rows * subgroups) * ceil(shape.vocab / 128)
    assert plan.product.workgroups == (tiles, 1, 1)
    assert plan.preparation is not None
    padded_dim = ceil(embed_dim / 64) * 64
    assert plan.preparation.workgroups == (plan.padded_rows, 1, 1)
    assert plan.preparation.constants == {**shape.constants, "PADDED_DIM": padded_dim}
    assert plan.x_bytes == plan.padded_rows * padded_dim * 2
    assert plan.x_scale_bytes == plan.padded_rows * 4
