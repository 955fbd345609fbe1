"""The plans of a decoder: teams that a workgroup holds, outputs that are all computed."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from tests.unit.kernels.every_shader import WEBGPU_LIMITS
from wgpu_q4.kernels import HalfSupport, MatrixShape
from wgpu_q4.kernels.decoder import Epilogue, Matrix, WeightType, float_bits, plan_gemv
from wgpu_q4.kernels.decoder.teams import choose_team

NATIVE = HalfSupport(subnormals=True, rounding=True)
LLAMA = ((3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (128256, 2048))
SMOLLM2 = ((960, 576), (576, 576), (3072, 576), (576, 1536), (49152, 576))
OTHERS = ((64, 32), (192, 64), (1024, 1056), (640, 2048), (9216, 3072), (262144, 640))


def matrix(rows: int, columns: int, type_: WeightType = "q4gsw") -> Matrix:
    return Matrix(MatrixShape(rows, columns, 32, "float16"), type_)


@pytest.mark.parametrize(("rows", "columns"), [*LLAMA, *SMOLLM2, *OTHERS])
def test_teams(rows: int, columns: int) -> None:
    types: tuple[WeightType, ...] = get_args(WeightType)
    epilogues: tuple[Epilogue, ...] = ("store", "add", "glu", "best")
    for type_, software, epilogue in product(types, (False, True), epilogues):
        team = choose_team(matrix(rows, columns, type_), software, epilogue)
        assert team.lanes % team.rows == 0 or team.lanes == 1
        assert team.invocations % team.lanes == 0
        assert 8 <= team.invocations <= 256
        assert team.rows in (1, 2, 4, 8)
        assert team.rows > 1 or epilogue != "glu"  # a gated unit has gate and up
        if type_ in ("float16", "affine8") and not software:
            assert team.rows <= 4
        chunks = columns // 32
        if not software:
            assert team.lanes <= 2 * chunks or team.lanes == 8


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (3072, 2048, (64, 2, 256)),
        (16384, 2048, (64, 8, 128)),
        (2048, 8192, (256, 8, 256)),
        (128256, 2048, (64, 8, 128)),
        (960, 576, (32, 1, 128)),
        (3072, 576, (32, 2, 128)),
        (576, 1536, (64, 1, 128)),
        (49152, 576, (32, 8, 128)),
        (64, 64, (8, 1, 128)),
    ],
)
def test_the_fastest_team_that_was_measured(
    rows: int, columns: int, expected: tuple[int, int, int]
) -> None:
    team = choose_team(matrix(rows, columns), False, "store")
    assert (team.lanes, team.rows, team.invocations) == expected


def test_invocations_of_a_processor_share_x_in_subgroups_of_8() -> None:
    for subgroup, rows, piece in (
        (0, 8, ""),
        (4, 8, ""),
        (8, 4, "_subgroup"),
        (16, 4, "_subgroup"),
    ):
        plan = plan_gemv(
            *(matrix(576, 576), "add", WEBGPU_LIMITS, NATIVE), software=True, subgroup=subgroup
        ).dispatch
        team = [plan.constants[name] for name in ("TEAM", "LANE_ROWS", "INVOCATIONS")]
        assert team == [1, rows, 8]
        assert f"decoder/gemv/x_in_chunks{piece}" in plan.shader.pieces


@pytest.mark.parametrize(("rows", "columns"), [*LLAMA, *SMOLLM2, *OTHERS])
def test_every_output_has_a_workgroup(rows: int, columns: int) -> None:
    epilogues: tuple[Epilogue, ...] = ("store", "add", "glu", "best")
    for epilogue, software in product(epilogues, (False, True)):
        plan = plan_gemv(
            *(matrix(rows, columns), epilogue, WEBGPU_LIMITS, NATIVE), software=software
        )
        constants, (x, y, z) = plan.dispatch.constants, plan.dispatch.workgroups
        outputs = constants["INVOCATIONS"] // constants["TEAM"] * constants["LANE_ROWS"]
        assert (plan.workgroups - 1) * outputs < rows <= plan.workgroups * outputs
        assert plan.workgroups <= x * y < plan.workgroups + x
        assert z == 1
        assert plan.dispatch.needs is not None
        assert plan.dispatch.needs["t_weight"] == rows * columns // 2


def test_floats_in_constants() -> None:
    assert float_bits(1.0) == 0x3F800000
    assert float_bits(-2.5) == 0xC0200000
