"""Which kernel multiplies: the table, and the first of its rows that fits."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import product

import pytest

from tests.unit.kernels.planning import (
    ACCURACIES,
    ARITHMETIC,
    H200,
    LAYOUTS,
    LLAMA,
    NATIVE,
    NONE,
    ROUNDING,
    SUBNORMALS,
    WEBGPU,
    linear,
)
from wgpu_q4.kernels import (
    DEFAULT_LAYOUT,
    LAST_GEMV_ROWS,
    LINEAR_KERNELS,
    MATRIX_UNITS,
    TABLE,
    Accuracy,
    Choice,
    HalfSupport,
    Layout,
    MatrixShape,
    MatrixUnits,
    choose_linear,
    plan_embedding,
)

# Rows up to which "rows" takes a kernel that unpacks the weight for 8 rows of x at once.
LAST_TEAM_ROWS = 48


@pytest.mark.parametrize("rows", [1, 2, 8, 9, LAST_TEAM_ROWS])
def test_few_rows_take_a_gemv(rows: int) -> None:
    for support, exact in {
        SUBNORMALS: "gemv_wide_subnormal",
        NATIVE: "gemv_wide_subnormal",
        NONE: "gemv_wide",
        ROUNDING: "gemv_wide",
    }.items():
        expected = {"exact": exact, "fast": "gemv_int16", "int8": "gemv_int8"}
        for accuracy in ACCURACIES:
            plan = linear(rows=rows, support=support, accuracy=accuracy)
            assert plan.kernel == expected[accuracy]


@pytest.mark.parametrize("rows", [1, 9, LAST_TEAM_ROWS])
def test_a_processor_takes_the_plain_arithmetic(rows: int) -> None:
    """It has no instruction for what saves a GPU some."""
    expected: dict[Accuracy, str] = {"exact": "gemv_wide", "fast": "gemv_wide", "int8": "gemv_int8"}
    for support, accuracy in product((NONE, NATIVE), ACCURACIES):
        plan = linear(rows=rows, support=support, accuracy=accuracy, software=True)
        assert plan.kernel == expected[accuracy]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_few_rows_take_a_gemv_of_their_layout_elsewhere(layout: Layout) -> None:
    packed = layout.startswith("blocks")
    expected: dict[Accuracy, list[str]] = {
        "exact": ["gemv", "gemm"],
        "fast": ["gemv_int16" if packed else "gemv", "gemm"],
        "int8": ["gemv_int8" if packed else "gemv", "gemm_int8"],
    }
    for accuracy, rows in product(ACCURACIES, (1, 2, LAST_GEMV_ROWS)):
        few, many = (
            linear(rows=count, layout=layout, accuracy=accuracy).kernel
            for count in (rows, LAST_GEMV_ROWS + 1)
        )
        assert [few, many] == expected[accuracy]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_rows_take_a_gemm(layout: Layout) -> None:
    expected: dict[Accuracy, str] = {"exact": "gemm", "fast": "gemm", "int8": "gemm_int8"}
    for (accuracy, kernel), rows in product(expected.items(), (LAST_TEAM_ROWS + 1, 500)):
        plan = linear(rows=rows, layout=layout, accuracy=accuracy)
        assert plan.kernel == kernel
        assert plan.preparation is not None
        assert rows <= plan.padded_rows < rows + plan.product.constants["TILE_M"]


@pytest.mark.parametrize("accuracy", ["fast", "int8"])
def test_matrix_units_are_taken_where_they_are_faster(accuracy: Accuracy) -> None:
    firsts: dict[Layout, int] = {"rows": 9, "blocks_buffer": 5}
    for layout, first in firsts.items():
        for rows in (1, first - 1, first, LAST_TEAM_ROWS, 500):
            plan = linear(
                rows=rows, layout=layout, device=H200, accuracy=accuracy, units=[MATRIX_UNITS]
            )
            assert (plan.kernel == "gemm_matrix") == (rows >= first)
    # 24,064 bytes of workgroup memory are more than WebGPU promises.
    assert linear(rows=500, device=WEBGPU, accuracy=accuracy, units=[MATRIX_UNITS]).kernel in (
        "gemm",
        "gemm_int8",
    )


def test_only_what_rounds_or_tiles_x_prepares_it() -> None:
    for rows, layout in product((1, LAST_GEMV_ROWS), LAYOUTS):
        plan = linear(rows=rows, layout=layout)
        assert (plan.preparation, plan.padded_rows) == (None, 0)
        assert (plan.x_bytes, plan.x_scale_bytes) == (0, 0)


def test_narrow_shapes_take_the_plain_kernels() -> None:
    """The others read 32 columns at a time and give all of them one scale."""
    for embed_dim, group_size in ((24, 24), (40, 8), (64, 16), (96, 24)):
        shape = MatrixShape(50, embed_dim, group_size, "float16")
        for accuracy, layout, units in product(ACCURACIES, LAYOUTS, ([], [MATRIX_UNITS])):
            few, many = (
                linear(shape, rows, layout, H200, accuracy=accuracy, units=units).kernel
                for rows in (1, 500)
            )
            assert (few, many) == ("gemv", "gemm")


def test_the_default_layout_has_the_wide_kernels() -> None:
    assert linear(layout=DEFAULT_LAYOUT).kernel.startswith("gemv_wide")


@pytest.mark.parametrize("support", [NONE, SUBNORMALS, ROUNDING, NATIVE])
def test_halves_are_converted_by_functions_only_where_both_are_right(support: HalfSupport) -> None:
    halves = "half/native" if support == NATIVE else "half/integer"
    assert support.halves == halves.removeprefix("half/")
    embedding = plan_embedding(LLAMA, 1, "rows", "float16", "buffer", WEBGPU, support)
    for plan in (embedding, linear(support=support).product):
        assert [piece for piece in plan.shader.pieces if piece.startswith("half/")] == [halves]


# The table

QUERIES = [
    *product(
        (LLAMA, MatrixShape(50, 64, 16, "float16"), MatrixShape(50, 72, 24, "float32")),
        (1, 2, 4, 5, 8, 9, 10, 48, 49, 500),
        LAYOUTS,
        (NONE, SUBNORMALS, ROUNDING, NATIVE, ARITHMETIC),
        ACCURACIES,
        ((), (MATRIX_UNITS,)),
        (False, True),
        (0, 4, 32),
    )
]


def fits(
    choice: Choice,
    shape: MatrixShape,
    rows: int,
    layout: Layout,
    support: HalfSupport,
    accuracy: Accuracy,
    units: Collection[MatrixUnits],
    software: bool,
    subgroup: int,
) -> bool:
    """Tell whether nothing stands against a row of the table."""
    kernel, measured = choice.kernel, choice.measured
    is_wide = shape.embed_dim % 32 == 0 and shape.group_size % 32 == 0
    against = [
        accuracy not in choice.accuracies,
        layout not in measured.layouts,
        rows < measured.first_rows,
        measured.last_rows is not None and rows > measured.last_rows,
        kernel.name not in ("gemv", "gemm") and not is_wide,
        kernel.name == "gemv_wide_subnormal" and not support.subnormals,
        kernel.name == "gemv_registers" and not (support.arithmetic and subgroup >= 8),
        kernel.name == "gemm_matrix" and MATRIX_UNITS not in units,
        measured.software and not software,
    ]
    return not any(against)


def test_the_first_row_of_the_table_that_fits_is_taken() -> None:
    for query in QUERIES:
        shape, rows, layout, support, accuracy, units, software, subgroup = query
        chosen = choose_linear(*query)
        assert chosen is next(choice for choice in TABLE if fits(choice, *query)), query
        plan = linear(
            *(shape, rows, layout, H200, support, None, accuracy, units),
            software=software,
            subgroup=subgroup,
        )
        assert plan.kernel == chosen.kernel.name


def test_every_row_of_the_table_is_reached() -> None:
    chosen = {id(choose_linear(*query)) for query in QUERIES}
    assert chosen == {id(choice) for choice in TABLE}
    assert {choice.kernel for choice in TABLE} == set(LINEAR_KERNELS.values())


def test_every_row_of_the_table_has_a_measurement() -> None:
    for choice in TABLE:
        measured = choice.measured
        assert re.search(r"\d (µs|ms)\b", choice.because), choice.because
        assert not re.search(r"TBD|TODO|\?|XXX", choice.because)
        assert choice.accuracies
        assert measured.layouts
        assert 1 <= measured.first_rows <= (measured.last_rows or measured.first_rows)


def test_an_accuracy_is_never_undercut() -> None:
    """float32 sums of exact products; or x rounded to 16 bits; or to 8."""
    bits: dict[Accuracy, int] = {"exact": 32, "fast": 16, "int8": 8}
    for query in QUERIES:
        kernel, accuracy = choose_linear(*query).kernel, query[4]
        assert (kernel.integer_bits or 32) >= bits[accuracy]
        assert accuracy in kernel.accuracies


def test_the_accuracy_of_its_own_choice_is_exact() -> None:
    for rows in (1, 40, 500):
        plan = linear(rows=rows, device=H200, support=NATIVE, units=[MATRIX_UNITS])
        assert not LINEAR_KERNELS[plan.kernel].rounds_x
