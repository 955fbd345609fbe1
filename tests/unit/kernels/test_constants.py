"""The constants of the matrix products: tiles that fit, teams with little to idle, x in slices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import ceil, prod

import pytest

from tests.unit.kernels.planning import (
    DEVICES,
    EXACT_WIDE,
    H200,
    INTEGER_GEMVS,
    LENGTHS,
    LLVMPIPE,
    SWIFTSHADER,
    WEBGPU,
    jobs,
    limits,
    linear,
)
from wgpu_q4.kernels import BLOCKS, Layout, MatrixShape

WIDE_LAYOUTS: tuple[Layout, ...] = ("rows", "blocks_buffer", "blocks_texture2d")


def of_length(embed_dim: int, group_size: int = 32) -> MatrixShape:
    return MatrixShape(50, embed_dim, group_size, "float16")


# Tiles


def tile(rows: int, device: Mapping[str, int], kernel: str = "gemm") -> int:
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


def test_a_tile_fits_its_device() -> None:
    for kernel, rows, device in product(
        ("gemm", "gemm_int8"), (1, 17, 31, 33, 65, 129, 1000), DEVICES
    ):
        tile_m = tile(rows, device, kernel)
        assert tile_m in ((32, 64, 128) if kernel == "gemm" else (64, 128))
        assert tile_m <= device["max-compute-invocations-per-workgroup"]
        staged = {
            "gemm": 16 * 4 * (tile_m + 64),  # 16 columns of x and of the weight, in float32
            "gemm_int8": tile_m * (32 + 8) + 64 * (32 + 4),  # 32 bytes and scales of each row
        }
        assert staged[kernel] <= device["max-compute-workgroup-storage-size"]


# Teams: lanes that share a row


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
    assert linear(of_length(embed_dim, 8), kernel="gemv").product.constants["TEAM"] == expected


def test_no_more_than_a_quarter_of_a_team_is_idle() -> None:
    def idle(lanes: int, words: int) -> float:
        return 1 - words / (ceil(words / lanes) * lanes)

    for words in range(1, 130):
        chosen = linear(of_length(8 * words, 8), kernel="gemv").product.constants["TEAM"]
        assert chosen in (1, 2, 4, 8, 16, 32)
        assert idle(chosen, words) <= 0.25
        assert all(idle(wider, words) > 0.25 for wider in (2, 4, 8, 16, 32) if wider > chosen)


@pytest.mark.parametrize("kernel", [*EXACT_WIDE, *INTEGER_GEMVS])
def test_a_team_of_four_outputs(kernel: str) -> None:
    """At least four lanes, which store the team's four outputs; more only where they have work."""
    for embed_dim, rows in product(LENGTHS, (1, 2, 3, 4, 5, 8, 17)):
        constants = linear(of_length(embed_dim), rows, kernel=kernel).product.constants
        team, chunks = constants["TEAM"], embed_dim // 32
        assert team in (4, 8, 16)
        assert team == 4 or ceil(chunks / team) * team * 3 <= chunks * 4
        assert constants["INVOCATIONS"] % team == 0
        # As many of 1, 2, 4, 8 as there are rows, or 8.
        assert constants["X_ROWS"] == min(8, 1 << (rows - 1).bit_length())


@pytest.mark.parametrize("kernel", INTEGER_GEMVS)
def test_a_team_on_blocks(kernel: str) -> None:
    """A lane takes 16 columns at a time; no more than a quarter of the lanes' turns are idle."""
    for embed_dim in LENGTHS:
        plan = linear(of_length(embed_dim), layout="blocks_buffer", kernel=kernel)
        team = plan.product.constants["TEAM"]
        assert team in (2, 4, 8, 16)
        assert ceil(embed_dim / 16 / team) * team * 3 <= embed_dim // 16 * 4
        assert plan.product.constants["INVOCATIONS"] % team == 0


def test_blocks_that_a_lane_takes_at_once_lie_in_one_group() -> None:
    for group_size, layout in product((8, 16, 24, 32, 40, 128), BLOCKS):
        shape = of_length(group_size * 16, group_size)
        columns = 4 * linear(shape, layout=layout, kernel="gemv").product.constants["LANE_BLOCKS"]
        assert group_size % columns == 0
        assert shape.embed_dim % columns == 0


# x in workgroup memory


@pytest.mark.parametrize("kernel", EXACT_WIDE)
def test_lanes_keep_their_turns_from_slice_to_slice(kernel: str) -> None:
    """A slice is whole turns of a team: only in the last are there lanes without a chunk."""
    for embed_dim, rows in product(LENGTHS, (1, 2, 3, 8)):
        constants = linear(of_length(embed_dim), rows, kernel=kernel).product.constants
        assert constants["SLICE"] % constants["TEAM"] == 0
        assert constants["SLICE"] > 0


@pytest.mark.parametrize("kernel", INTEGER_GEMVS)
def test_integers_of_a_workgroup_are_those_of_a_row(kernel: str) -> None:
    planes = {"gemv_int16": 2, "gemv_int8": 1}[kernel]
    for embed_dim, layout, rows in product(LENGTHS, WIDE_LAYOUTS, (1, 3)):
        shape = of_length(embed_dim)
        plan = linear(shape, rows, layout, kernel=kernel)
        constants = plan.product.constants
        assert constants["PLANES"] == planes
        if plan.preparation is not None:
            assert plan.preparation.constants == {**shape.constants, "PLANES": planes}
            assert not {"CHUNKS", "VECTORS"} & set(constants)
        else:
            assert constants["CHUNKS"] == embed_dim // 32
            assert constants["VECTORS"] * 16 == planes * embed_dim  # a byte a value and plane


@pytest.mark.parametrize("kernel", INTEGER_GEMVS)
@pytest.mark.parametrize("layout", WIDE_LAYOUTS)
def test_one_row_is_quantized_by_each_workgroup_while_it_has_room(
    kernel: str, layout: Layout
) -> None:
    """What every workgroup does again costs no dispatch; what is long is done once before."""
    prepared = [
        linear(of_length(embed_dim), layout=layout, kernel=kernel).preparation is not None
        for embed_dim in LENGTHS
    ]
    assert prepared == sorted(prepared), "a longer x finds room where a shorter one does not"
    assert prepared[0] is False
    assert prepared[-1] is True
    for rows in (2, 3, 8, 9, 40):
        assert linear(rows=rows, layout=layout, kernel=kernel).preparation is not None


def test_workgroup_memory_of_any_length() -> None:
    """Within 16 KiB where a device has no more, counted from the constants.

    `test_limits.py` counts what the text of each kernel declares.
    """
    for embed_dim in LENGTHS:
        shape = of_length(embed_dim)
        for rows, kernel, layout in (
            (count, *job) for count in (1, 2, 4, 8, 65) for job in jobs(shape, count)
        ):
            constants = linear(shape, rows, layout, kernel=kernel).product.constants
            used = 0
            if kernel in EXACT_WIDE:
                used = 16 * constants["INVOCATIONS"]
                used += constants["X_ROWS"] * constants["SLICE"] * 128
            elif kernel == "gemv_registers":
                sums = constants["INVOCATIONS"] * constants["LANE_ROWS"] // constants["SUBGROUP"]
                used = 128 * (constants["TEAM"] + 1) + 4 * sums
            elif kernel in INTEGER_GEMVS:
                scale_words = 8 if layout == "rows" else 16
                used = 16 * constants["INVOCATIONS"] * (1 if layout == "rows" else 2)
                used += 16 * constants.get("VECTORS", 0) + scale_words * constants.get("CHUNKS", 0)
            assert used <= 16384, (kernel, layout, rows, embed_dim)


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
