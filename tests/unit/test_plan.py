"""Which kernel, which constants, which grid: decided by arithmetic alone, so tested without a GPU.

What a plan promises is that its workgroups, with its constants, reach every output, and that the
device has room for them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from math import ceil, prod
from typing import Any, get_args

import pytest

from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.kernels import (
    DEFAULT_LAYOUT,
    INTEGER_BITS,
    LAST_GEMV_ROWS,
    MATRIX_UNITS,
    TABLE,
    UNCHECKED,
    Accuracy,
    Choice,
    Dispatch,
    HalfSupport,
    Layout,
    LinearKernel,
    LinearPlan,
    MatrixShape,
    MatrixUnits,
    OutputDtype,
    Storage,
    choose_linear,
    fold,
    linear_kernels,
    plan_embedding,
    plan_linear,
    plan_pack,
    plan_reduce,
)

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
ACCURACIES: tuple[Accuracy, ...] = get_args(Accuracy)
KERNELS: tuple[LinearKernel, ...] = get_args(LinearKernel)
INTEGER_GEMVS: tuple[LinearKernel, ...] = ("gemv_int16", "gemv_int8")
EXACT_WIDE: tuple[LinearKernel, ...] = ("gemv_wide", "gemv_wide_subnormal")


def limits(
    *,
    workgroup_bytes: int = 16384,
    invocations: int = 256,
    width: int | None = None,
    workgroups: int = 65535,
) -> dict[str, int]:
    """A device's limits; by default those that WebGPU grants everywhere."""
    return {
        "max-compute-workgroup-storage-size": workgroup_bytes,
        "max-compute-invocations-per-workgroup": invocations,
        "max-compute-workgroup-size-x": invocations if width is None else width,
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
WIDE_SHAPES = [shape for shape in SHAPES if shape.embed_dim % 32 == shape.group_size % 32 == 0]
LENGTHS = [*range(32, 2049, 32), 3072, 4096, 5120, 7168, 8192, 11008, 14336, 16384]
"""K of what wide kernels read, up to the longest of any model here."""


def linear(
    shape: MatrixShape = LLAMA,
    rows: int = 1,
    layout: Layout = "rows",
    device: Mapping[str, int] = WEBGPU,
    support: HalfSupport = SUBNORMALS,
    kernel: LinearKernel | None = None,
    accuracy: Accuracy = "exact",
    units: Collection[MatrixUnits] = (),
    *,
    bias: bool = False,
    software: bool = False,
) -> LinearPlan:
    return plan_linear(
        shape, rows, layout, bias, device, support, kernel, accuracy, units, software
    )


def kernel_of(plan: LinearPlan) -> str:
    """``gemv`` of ``linear_q4gsw_gemv_rows_float16_scales``."""
    name = plan.product.shader.name.removeprefix("linear_q4gsw_")
    named: list[str] = [k for k in KERNELS if name.startswith(f"{k}_")]
    return max(named, key=len)


def is_wide(shape: MatrixShape) -> bool:
    return shape.embed_dim % 32 == 0 and shape.group_size % 32 == 0


def jobs(
    shape: MatrixShape, device: Mapping[str, int] = WEBGPU
) -> Iterator[tuple[LinearKernel, Layout]]:
    """Every kernel that can do the shape, with every layout that it reads."""
    for layout in LAYOUTS:
        for kernel in linear_kernels(layout):
            bytes_needed = 24064 if kernel == "gemm_matrix" else 0
            has_room = device["max-compute-workgroup-storage-size"] >= bytes_needed
            if has_room and (kernel in ("gemv", "gemm") or is_wide(shape)):
                yield kernel, layout


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


# Rows up to which "rows" takes a kernel that unpacks the weight for 8 rows of x at once.
LAST_TEAM_ROWS = 48


@pytest.mark.parametrize("rows", [1, 2, 8, 9, LAST_TEAM_ROWS])
def test_few_rows_take_a_gemv(rows: int) -> None:
    assert kernel_of(linear(rows=rows)) == "gemv_wide_subnormal"
    assert kernel_of(linear(rows=rows, support=NATIVE)) == "gemv_wide_subnormal"
    assert kernel_of(linear(rows=rows, support=NONE)) == "gemv_wide"
    assert kernel_of(linear(rows=rows, support=HalfSupport(rounding=True))) == "gemv_wide"
    for support in (NONE, SUBNORMALS, NATIVE):
        assert kernel_of(linear(rows=rows, support=support, accuracy="fast")) == "gemv_int16"
        assert kernel_of(linear(rows=rows, support=support, accuracy="int8")) == "gemv_int8"


@pytest.mark.parametrize("rows", [1, 9, LAST_TEAM_ROWS])
def test_a_processor_takes_the_plain_arithmetic(rows: int) -> None:
    """It has no instruction for what saves a GPU some."""
    expected: dict[Accuracy, str] = {"exact": "gemv_wide", "fast": "gemv_wide", "int8": "gemv_int8"}
    for support, accuracy in product((NONE, NATIVE), ACCURACIES):
        plan = linear(rows=rows, support=support, accuracy=accuracy, software=True)
        assert kernel_of(plan) == expected[accuracy]


@pytest.mark.parametrize("rows", [1, 2, LAST_GEMV_ROWS])
@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_few_rows_take_a_gemv_of_their_layout_elsewhere(rows: int, layout: Layout) -> None:
    packed = layout.startswith("blocks")
    expected: dict[Accuracy, list[str]] = {
        "exact": ["gemv", "gemm"],
        "fast": ["gemv_int16" if packed else "gemv", "gemm"],
        "int8": ["gemv_int8" if packed else "gemv", "gemm_int8"],
    }
    for accuracy in ACCURACIES:
        few, many = (
            kernel_of(linear(rows=count, layout=layout, accuracy=accuracy))
            for count in (rows, LAST_GEMV_ROWS + 1)
        )
        assert [few, many] == expected[accuracy]


@pytest.mark.parametrize("rows", [LAST_TEAM_ROWS + 1, 500])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_rows_take_a_gemm(rows: int, layout: Layout) -> None:
    expected: dict[Accuracy, str] = {"exact": "gemm", "fast": "gemm", "int8": "gemm_int8"}
    for accuracy, kernel in expected.items():
        plan = linear(rows=rows, layout=layout, accuracy=accuracy)
        assert kernel_of(plan) == kernel
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
            assert (kernel_of(plan) == "gemm_matrix") == (rows >= first)


def test_only_what_rounds_or_tiles_x_prepares_it() -> None:
    for rows, layout in product((1, LAST_GEMV_ROWS), LAYOUTS):
        plan = linear(rows=rows, layout=layout)
        assert (plan.preparation, plan.padded_rows) == (None, 0)
        assert (plan.x_bytes, plan.x_scale_bytes) == (0, 0)


@pytest.mark.parametrize("kernel", INTEGER_GEMVS)
@pytest.mark.parametrize("layout", ["rows", "blocks_buffer", "blocks_texture2d"])
def test_one_row_is_quantized_by_each_workgroup_while_it_has_room(
    kernel: LinearKernel, layout: Layout
) -> None:
    """What every workgroup does again costs no dispatch; what is long is done once before."""
    shapes = [MatrixShape(50, embed_dim, 32, "float16") for embed_dim in LENGTHS]
    prepared = [linear(s, layout=layout, kernel=kernel).preparation is not None for s in shapes]
    assert prepared == sorted(prepared), "a longer x finds room where a shorter one does not"
    assert prepared[0] is False
    assert prepared[-1] is True
    for rows in (2, 3, 8, 9, 40):
        assert linear(rows=rows, layout=layout, kernel=kernel).preparation is not None


# The table of choices

QUERIES = [
    (shape, rows, layout, support, accuracy, units, software)
    for shape, rows, layout, support, accuracy, units, software in product(
        (LLAMA, MatrixShape(50, 64, 16, "float16"), MatrixShape(50, 72, 24, "float32")),
        (1, 2, 4, 5, 8, 9, 10, 48, 49, 500),
        LAYOUTS,
        (NONE, SUBNORMALS, HalfSupport(rounding=True), NATIVE),
        ACCURACIES,
        ((), (MATRIX_UNITS,)),
        (False, True),
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
) -> bool:
    """Whether nothing stands against a row of the table."""
    against = [
        accuracy not in choice.accuracies,
        not any(layout.startswith(start) for start in choice.layouts),
        choice.kernel not in linear_kernels(layout),
        rows < choice.first_rows,
        choice.last_rows is not None and rows > choice.last_rows,
        choice.wide and not is_wide(shape),
        choice.subnormals and not support.subnormals,
        choice.matrix_units and MATRIX_UNITS not in units,
        choice.software is not None and choice.software != software,
    ]
    return not any(against)


def test_the_first_row_of_the_table_that_fits_is_taken() -> None:
    for query in QUERIES:
        shape, rows, layout, support, accuracy, units, software = query
        chosen = choose_linear(*query)
        fitting = [choice for choice in TABLE if fits(choice, *query)]
        assert chosen is fitting[0], query
        plan = linear(shape, rows, layout, H200, support, None, accuracy, units, software=software)
        assert kernel_of(plan) == chosen.kernel


def test_every_row_of_the_table_is_reached() -> None:
    chosen = {id(choose_linear(*query)) for query in QUERIES}
    assert chosen == {id(choice) for choice in TABLE}
    assert {choice.kernel for choice in TABLE} == set(KERNELS)


@pytest.mark.parametrize("choice", TABLE, ids=lambda choice: f"{choice.kernel}-{choice.layouts[0]}")
def test_every_row_of_the_table_has_a_measurement(choice: Choice) -> None:
    assert re.search(r"\d (µs|ms)\b", choice.because), choice.because
    assert not re.search(r"TBD|TODO|\?|XXX", choice.because)
    assert choice.accuracies
    assert choice.layouts
    assert set(choice.accuracies) <= set(ACCURACIES)
    assert 1 <= choice.first_rows <= (choice.last_rows or choice.first_rows)


def test_an_accuracy_is_never_undercut() -> None:
    """float32 sums of exact products; or x rounded to 16 bits; or to 8."""
    bits: dict[Accuracy, int] = {"exact": 32, "fast": 16, "int8": 8}
    for query in QUERIES:
        kernel, accuracy = choose_linear(*query).kernel, query[4]
        assert INTEGER_BITS.get(kernel, 32) >= bits[accuracy]
        if accuracy == "exact":
            assert kernel not in INTEGER_BITS
            assert kernel != "gemm_matrix"
    for choice in TABLE:
        if choice.kernel in INTEGER_BITS or choice.kernel == "gemm_matrix":
            assert "exact" not in choice.accuracies
    assert set(INTEGER_BITS) == {kernel for kernel in KERNELS if "int" in kernel}


def test_the_accuracy_of_its_own_choice_is_exact() -> None:
    for rows in (1, 40, 500):
        plan = plan_linear(LLAMA, rows, "rows", False, H200, NATIVE, matrix_units=[MATRIX_UNITS])
        assert plan == linear(rows=rows, device=H200, support=NATIVE, accuracy="exact")


# What a kernel needs


@pytest.mark.parametrize(("embed_dim", "group_size"), [(24, 24), (40, 8), (64, 16), (96, 24)])
def test_narrow_shapes_take_the_plain_gemv(embed_dim: int, group_size: int) -> None:
    """The wide ones read 32 columns at a time and give all of them one scale."""
    shape = MatrixShape(50, embed_dim, group_size, "float16")
    for accuracy, layout in product(ACCURACIES, LAYOUTS):
        for units in ([], [MATRIX_UNITS]):
            few, many = (
                linear(shape, rows, layout, H200, accuracy=accuracy, units=units)
                for rows in (1, 500)
            )
            assert (kernel_of(few), kernel_of(many)) == ("gemv", "gemm")


def test_the_default_layout_has_the_wide_kernels() -> None:
    assert kernel_of(linear(layout=DEFAULT_LAYOUT)).startswith("gemv_wide")


@pytest.mark.parametrize("support", [NONE, SUBNORMALS, HalfSupport(rounding=True), NATIVE])
def test_halves_are_converted_by_functions_only_where_both_are_right(support: Any) -> None:
    halves = "half/native" if support == NATIVE else "half/integer"
    assert support.halves == halves.removeprefix("half/")
    embedding = plan_embedding(LLAMA, 1, "rows", "float16", "buffer", WEBGPU, support)
    for plan in (embedding, linear(support=support).product):
        assert [piece for piece in plan.shader.pieces if piece.startswith("half/")] == [halves]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_that_cannot_do_it_is_refused(kernel: LinearKernel) -> None:
    narrow = MatrixShape(50, 64, 16, "float16")
    for layout in LAYOUTS:
        if kernel not in linear_kernels(layout):
            with pytest.raises(ValueError, match=rf"^{kernel} needs the layout 'rows'"):
                linear(layout=layout, kernel=kernel)
        elif kernel not in ("gemv", "gemm"):
            with pytest.raises(ValueError, match=rf"^{kernel} needs K and G multiples of 32"):
                linear(narrow, layout=layout, kernel=kernel)
    if kernel == "gemv_wide_subnormal":
        with pytest.raises(ValueError, match="keeps half-precision subnormals"):
            linear(kernel=kernel, support=NONE)
    if kernel == "gemm_matrix":
        with pytest.raises(ValueError, match="a device with matrix units"):
            linear(kernel=kernel, device=H200)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_can_be_asked_for_by_name(kernel: LinearKernel) -> None:
    for rows, layout in product((1, 9, 500), LAYOUTS):
        if kernel in linear_kernels(layout):
            plan = linear(
                rows=rows, layout=layout, device=H200, kernel=kernel, units=[MATRIX_UNITS]
            )
            assert kernel_of(plan) == kernel


# The tiles of the GEMMs


def tile(rows: int, device: Mapping[str, int], kernel: LinearKernel = "gemm") -> int:
    return linear(rows=rows, device=device, kernel=kernel).product.constants["TILE_M"]


@pytest.mark.parametrize(
    ("rows", "device", "expected"),
    [
        # Rows fill a tile by more than half.
        (17, H200, 32),
        (32, H200, 32),
        (33, H200, 64),
        (64, H200, 64),
        (65, H200, 128),
        (4096, H200, 128),
        # 128 × 64 takes 12,288 bytes and 128 invocations: every device has them.
        (4096, LLVMPIPE, 128),
        (4096, SWIFTSHADER, 128),
        (4096, WEBGPU, 128),
        (33, WEBGPU, 64),
        (32, WEBGPU, 32),
        (4096, limits(workgroup_bytes=12288), 128),
        (4096, limits(workgroup_bytes=12287), 64),
        (4096, limits(workgroup_bytes=8192), 64),
        (4096, limits(workgroup_bytes=8191), 32),
        (4096, limits(invocations=128), 128),
        (4096, limits(invocations=127), 64),
        (4096, limits(invocations=63), 32),
        (4096, limits(width=127), 64),
    ],
)
def test_tile(rows: int, device: Mapping[str, int], expected: int) -> None:
    assert tile(rows, device) == expected


@pytest.mark.parametrize(
    ("rows", "device", "expected"),
    [
        (1, H200, 64),
        (64, H200, 64),
        (65, H200, 128),
        (65, WEBGPU, 128),
        # 128 × 64 takes 7,424 bytes: a byte for each value of x and of the weight, and the scales.
        (65, limits(workgroup_bytes=7424), 128),
        (65, limits(workgroup_bytes=7423), 64),
        (65, limits(invocations=127), 64),
        (65, limits(width=127), 64),
    ],
)
def test_tile_of_integers(rows: int, device: Mapping[str, int], expected: int) -> None:
    assert tile(rows, device, "gemm_int8") == expected


@pytest.mark.parametrize(
    "device",
    [WEBGPU, LLVMPIPE, SWIFTSHADER, H200],
    ids=["webgpu", "llvmpipe", "swiftshader", "h200"],
)
@pytest.mark.parametrize("rows", [1, 17, 31, 33, 65, 129, 1000])
@pytest.mark.parametrize("kernel", ["gemm", "gemm_int8"])
def test_a_tile_fits_its_device(kernel: LinearKernel, rows: int, device: Mapping[str, int]) -> None:
    tile_m = tile(rows, device, kernel)
    assert tile_m in ((32, 64, 128) if kernel == "gemm" else (64, 128))
    assert tile_m <= device["max-compute-invocations-per-workgroup"]
    staged = {
        "gemm": 16 * 4 * (tile_m + 64),  # 16 columns of x and of the weight, in float32
        "gemm_int8": tile_m * (32 + 8) + 64 * (32 + 4),  # 32 bytes and scales of each row
    }
    assert staged[kernel] <= device["max-compute-workgroup-storage-size"]


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


@pytest.mark.parametrize("embed_dim", LENGTHS)
@pytest.mark.parametrize("kernel", [*EXACT_WIDE, *INTEGER_GEMVS])
def test_a_wide_team(kernel: LinearKernel, embed_dim: int) -> None:
    """At least four lanes, which store the team's four outputs; more only where they have work."""
    shape, chunks = MatrixShape(50, embed_dim, 32, "float16"), embed_dim // 32
    for rows in (1, 2, 3, 4, 5, 8, 17):
        constants = linear(shape, rows, kernel=kernel).product.constants
        team = constants["TEAM"]
        assert team in (4, 8, 16)
        assert team == 4 or ceil(chunks / team) * team * 3 <= chunks * 4
        assert constants["INVOCATIONS"] % constants["TEAM"] == 0
        # As many of 1, 2, 4, 8 as there are rows, or 8.
        assert constants["X_ROWS"] == min(8, 1 << (rows - 1).bit_length())


@pytest.mark.parametrize("embed_dim", LENGTHS)
@pytest.mark.parametrize("kernel", INTEGER_GEMVS)
def test_a_team_on_blocks(kernel: LinearKernel, embed_dim: int) -> None:
    """A lane takes 16 columns at a time; no more than a quarter of the lanes' turns are idle."""
    shape = MatrixShape(50, embed_dim, 32, "float16")
    constants = linear(shape, layout="blocks_buffer", kernel=kernel).product.constants
    assert constants["TEAM"] in (2, 4, 8, 16)
    turns = ceil(embed_dim / 16 / constants["TEAM"])
    assert turns * constants["TEAM"] * 3 <= embed_dim // 16 * 4
    assert constants["INVOCATIONS"] % constants["TEAM"] == 0


@pytest.mark.parametrize("embed_dim", LENGTHS)
@pytest.mark.parametrize("kernel", EXACT_WIDE)
def test_lanes_keep_their_turns_from_slice_to_slice(kernel: LinearKernel, embed_dim: int) -> None:
    """A slice is whole turns of a team: only in the last are there lanes without a chunk."""
    shape = MatrixShape(50, embed_dim, 32, "float16")
    for rows in (1, 2, 3, 8):
        constants = linear(shape, rows, kernel=kernel).product.constants
        assert constants["SLICE"] % constants["TEAM"] == 0
        assert constants["SLICE"] > 0


@pytest.mark.parametrize("embed_dim", LENGTHS)
@pytest.mark.parametrize("kernel", INTEGER_GEMVS)
def test_integers_of_a_workgroup_are_those_of_a_row(kernel: LinearKernel, embed_dim: int) -> None:
    shape = MatrixShape(50, embed_dim, 32, "float16")
    planes = {"gemv_int16": 2, "gemv_int8": 1}[kernel]
    layouts: tuple[Layout, ...] = ("rows", "blocks_buffer", "blocks_texture2d")
    for layout, rows in product(layouts, (1, 3)):
        plan = linear(shape, rows, layout, kernel=kernel)
        constants = plan.product.constants
        assert constants["PLANES"] == planes
        if plan.preparation is not None:
            assert plan.preparation.constants == {**shape.constants, "PLANES": planes}
            assert not {"CHUNKS", "VECTORS"} & set(constants)
        else:
            assert constants["CHUNKS"] == embed_dim // 32
            assert constants["VECTORS"] * 16 == planes * embed_dim  # a byte a value and plane


@pytest.mark.parametrize("embed_dim", LENGTHS)
def test_workgroup_memory_of_any_length(embed_dim: int) -> None:
    """Within 16 KiB where a device has no more, counted from the constants.

    `test_kernels.py` counts what the text of each kernel declares.
    """
    shape = MatrixShape(50, embed_dim, 32, "float16")
    for (kernel, layout), rows in product(jobs(shape), (1, 2, 4, 8, 65)):
        plan = linear(shape, rows, layout, kernel=kernel).product
        constants = plan.constants
        used = 0
        if kernel in EXACT_WIDE:
            used = 16 * constants["INVOCATIONS"] + constants["X_ROWS"] * constants["SLICE"] * 128
        elif kernel in INTEGER_GEMVS:
            scale_words = 8 if layout == "rows" else 16
            used = 16 * constants["INVOCATIONS"] * (1 if layout == "rows" else 2)
            used += 16 * constants.get("VECTORS", 0) + scale_words * constants.get("CHUNKS", 0)
        assert used <= WEBGPU["max-compute-workgroup-storage-size"], (kernel, layout, rows)


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


def check_grid(plan: Dispatch, needed: int, device: Mapping[str, int]) -> None:
    """Workgroups for all, none twice but for the last row of a folded grid."""
    x, y, z = plan.workgroups
    assert z == 1
    assert max(x, y) <= device["max-compute-workgroups-per-dimension"]
    assert needed <= x * y < needed + y, f"{plan.shader.name}: {x} × {y} for {needed}"


def linear_pieces(plan: Dispatch) -> set[str]:
    """The names of its pieces below ``linear/``."""
    return {piece.removeprefix("linear/") for piece in plan.shader.pieces}


def tile_of(plan: Dispatch) -> tuple[int, int]:
    """Rows of x and outputs of each that a workgroup of a matrix product computes."""
    constants, pieces = plan.constants, linear_pieces(plan)
    if "gemv/gemv_rows" in pieces:
        return 1, 128 // constants["TEAM"]
    if "gemv/gemv_blocks" in pieces:
        return 1, 128 // constants["TEAM"] * 8
    if "gemv_integers/gemv_blocks" in pieces:
        return 1, constants["INVOCATIONS"] // constants["TEAM"] * 8 * constants["TILES"]
    if "gemv/team" in pieces:
        teams = constants["INVOCATIONS"] // constants["TEAM"]
        return constants["X_ROWS"], teams * 4 * constants.get("TILES", 1)
    if "common/gemm_tile" in pieces:
        return constants["TILE_M"], 64
    assert "matrix_units/gemm" in pieces
    (tile,) = (piece for piece in pieces if piece.startswith("matrix_units/tile_"))
    tile_rows, tile_outputs = map(int, tile.removeprefix("matrix_units/tile_").split("x"))
    subgroups = constants["SUBGROUPS_M"]
    return subgroups * tile_rows, 4 // subgroups * tile_outputs


@every_shape
@pytest.mark.parametrize("device", [WEBGPU, LLVMPIPE, H200], ids=["webgpu", "llvmpipe", "h200"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 9, 12, 13, 49, 70, 1000])
def test_linear_covers_every_output(
    shape: MatrixShape, rows: int, device: Mapping[str, int]
) -> None:
    for kernel, layout in jobs(shape, device):
        plan = linear(shape, rows, layout, device, kernel=kernel, units=[MATRIX_UNITS])
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
        assert (plan.x_bytes, plan.x_scale_bytes) == (
            plan.padded_rows * padded_dim * 2,
            plan.padded_rows * 4,
        )


def places(plan: Dispatch, shape: MatrixShape, rows: int) -> Counter[tuple[int, int]]:
    """How often each output (m, n) is computed, by the arithmetic of the kernels' bodies."""
    pieces = linear_pieces(plan)
    rows_of_x, outputs = tile_of(plan)
    parts = ceil(rows / rows_of_x)
    tiled = {"common/gemm_tile", "matrix_units/gemm"} & pieces
    assert not tiled or parts * rows_of_x >= rows
    found: Counter[tuple[int, int]] = Counter()
    for flat in range(prod(plan.workgroups)):
        first_m, first_n = flat % parts * rows_of_x, flat // parts * outputs
        found.update(
            (m, n)
            for m in range(first_m, min(first_m + rows_of_x, rows))
            for n in range(first_n, min(first_n + outputs, shape.vocab))
        )
    return found


@pytest.mark.parametrize("vocab", [1, 13, 101, 257, 1031])
@pytest.mark.parametrize("rows", [1, 3, 17, 33])
@pytest.mark.parametrize("workgroups", [65535, 50])
def test_every_output_is_computed_once(vocab: int, rows: int, workgroups: int) -> None:
    """Folded grids too, whose last workgroups have nothing to do."""
    shape = MatrixShape(vocab, 64, 32, "float16")
    device = limits(workgroup_bytes=49152, workgroups=workgroups)
    for kernel, layout in jobs(shape, device):
        plan = linear(shape, rows, layout, device, kernel=kernel, units=[MATRIX_UNITS])
        found = places(plan.product, shape, rows)
        assert len(found) == vocab * rows
        assert set(found.values()) == {1}


def test_a_large_matrix_is_several_tiles_a_workgroup() -> None:
    """What a workgroup spends on quantizing x is spread; small ones keep their workgroups."""
    for kernel in INTEGER_GEMVS:
        small, large = (
            linear(MatrixShape(vocab, 2048, 32, "float16"), kernel=kernel).product
            for vocab in (1024, 128256)
        )
        assert small.constants["TILES"] == 1
        assert large.constants["TILES"] == 4
        assert prod(large.workgroups) >= 400


@every_shape
@pytest.mark.parametrize("ids", [1, 7, 2047, 100_000])
def test_embedding_covers_every_output(shape: MatrixShape, ids: int) -> None:
    storages: tuple[Storage, ...] = get_args(Storage)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    for layout, storage, output in product(LAYOUTS, storages, outputs):
        plan = plan_embedding(shape, ids, layout, output, storage, WEBGPU, NATIVE)
        assert plan.constants == shape.constants
        # 128 invocations write 2 × 16 bytes each, or two texels of 4 values.
        values = 8 if (storage, output) == ("buffer", "float16") else 4
        octets = "embedding/grid_octets" in plan.shader.pieces
        assert octets == (values == 8)
        check_grid(plan, ceil(ids * shape.embed_dim / (128 * 2 * values)), WEBGPU)


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
    gemv = linear(shape, 11, device=FEW_WORKGROUPS, kernel="gemv")
    gemm = linear(shape, 5000, device=FEW_WORKGROUPS)
    wide = MatrixShape(3331, 96, 32, "float16")
    for plan in (embedding, gemv.product, *both(gemm)):
        assert 1 < plan.workgroups[1] <= 100
        assert plan.workgroups[0] <= 100
    for kernel, layout in jobs(wide):
        # As many rows as need more than 100 workgroups, which differ from kernel to kernel.
        rows = next(
            rows
            for rows in (20, 60, 200, 1000, 5000)
            if prod(linear(wide, rows, layout, kernel=kernel).product.workgroups) > 100
        )
        folded = linear(wide, rows, layout, FEW_WORKGROUPS, kernel=kernel)
        assert folded.product.workgroups[1] > 1
        for plan in both(folded):
            assert max(plan.workgroups) <= 100
    with pytest.raises(DeviceLimitError, match="workgroups exceed 100 × 100"):
        plan_embedding(shape, 10**6, "rows", "float32", "buffer", FEW_WORKGROUPS, NATIVE)


def both(plan: LinearPlan) -> list[Dispatch]:
    return [plan.product, *([] if plan.preparation is None else [plan.preparation])]


# What runs unchecked


def needs_of(
    shape: MatrixShape, rows: int, layout: Layout, plan: LinearPlan, bias: bool
) -> dict[str, int]:
    """Bytes of each binding of a product, counted value by value."""
    groups = shape.embed_dim // shape.group_size
    packed_rows = shape.vocab if layout.startswith("rows") else ceil(shape.vocab / 8) * 8
    nibbles = packed_rows * shape.embed_dim
    scale_bytes = shape.vocab * groups * {"float16": 2, "float32": 4}[shape.scales]
    needs = {
        "t_out": rows * shape.vocab * 4,
        "t_x": plan.x_bytes if plan.preparation else rows * shape.embed_dim * 4,
        "t_weight": nibbles // 2,
        "t_scales": ceil(scale_bytes / 4) * 4,  # whole words
        "sizes": 16,
    }
    if bias:
        needs["t_bias"] = shape.vocab * 4
    if plan.x_scale_bytes:
        needs["t_x_scales"] = plan.x_scale_bytes
    return needs


@every_shape
@pytest.mark.parametrize("rows", [1, 3, 8, 13, 70])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_an_unchecked_kernel_says_what_it_needs(shape: MatrixShape, rows: int, bias: bool) -> None:
    for kernel, layout in jobs(shape):
        plan = linear(shape, rows, layout, kernel=kernel, bias=bias)
        if not layout.startswith(UNCHECKED.get(kernel, ())):
            assert plan.product.needs is None
            continue
        assert plan.product.needs == needs_of(shape, rows, layout, plan, bias)
        bound = {binding.name for binding in plan.product.shader.bindings}
        assert set(plan.product.needs) == bound, "a binding is not compared with anything"
        assert all(nbytes > 0 and nbytes % 4 == 0 for nbytes in plan.product.needs.values())


def test_what_reads_a_texture_or_depends_on_data_stays_checked() -> None:
    for kernel, layout in jobs(LLAMA):
        for rows in (1, 9, 70):
            plan = linear(rows=rows, layout=layout, kernel=kernel)
            kinds = {binding.kind for binding in plan.product.shader.bindings}
            assert plan.product.needs is None or kinds == {"buffer"}
            assert plan.preparation is None or plan.preparation.needs is None
    for layout in LAYOUTS:
        assert plan_embedding(LLAMA, 3, layout, "float32", "buffer", WEBGPU, NATIVE).needs is None
    assert plan_pack(LLAMA, "blocks_buffer", WEBGPU).needs is None
    assert all(plan.needs is None for plan in plan_reduce(999, 3, "argmax", 1, WEBGPU).stages)
    assert all(kernel in KERNELS for kernel in UNCHECKED)


def test_checked_and_unchecked_are_two_pipelines() -> None:
    plan = linear().product
    assert plan.needs is not None
    checked = Dispatch(plan.shader, plan.constants, plan.workgroups)
    assert checked.key != plan.key
    scarce = Dispatch(plan.shader, plan.constants, plan.workgroups, {"t_out": 4})
    assert scarce.key == plan.key  # how large a buffer is makes no other code


# What is compiled once


def test_a_plan_of_another_size_shares_the_pipeline() -> None:
    """The number of ids or rows is no constant: nothing is compiled for it."""
    few, many = (
        plan_embedding(LLAMA, ids, "rows", "float32", "buffer", WEBGPU, NATIVE) for ids in (1, 999)
    )
    assert few.workgroups != many.workgroups
    assert few.key == many.key
    for kernel, layout in jobs(LLAMA, H200):
        keys = [
            [
                plan.key
                for plan in both(
                    linear(
                        rows=rows, layout=layout, device=H200, kernel=kernel, units=[MATRIX_UNITS]
                    )
                )
            ]
            for rows in (129, 300, 1000)
        ]
        assert keys[0] == keys[1] == keys[2]
    # Up to 8 rows of x at once are 4 pipelines, however many rows there are.
    for kernel in EXACT_WIDE:
        keys = [[linear(rows=rows, kernel=kernel).product.key] for rows in range(1, 49)]
        assert len({key for (key,) in keys}) == 4


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
