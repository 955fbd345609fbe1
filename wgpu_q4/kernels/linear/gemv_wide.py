"""``gemv_wide``: few rows of x, 32 columns of four rows of the weight at a time, in float32."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel, Measured, Reading
from wgpu_q4.kernels.linear.team import TeamShapes, team_constants, team_outputs

_TEAMS: TeamShapes = {1: (256, 16), 8: (256, 8)}


@dataclass(frozen=True, eq=False, kw_only=True)
class GemvWide(LinearKernel):
    """Four outputs for each team of lanes and for up to 8 rows of x."""

    def plan(self, job: Job) -> LinearPlan:
        constants = team_constants(job, _TEAMS)
        team, x_rows = constants["TEAM"], constants["X_ROWS"]
        constants["SLICE"] = min(64 // x_rows, -(-job.chunks // team) * team)
        workgroups = -(-job.shape.vocab // team_outputs(constants)) * -(-job.rows // x_rows)
        return LinearPlan(self.name, self.product(job, constants, workgroups))


def _rows(*nibbles: str) -> Reading:
    body = (*nibbles, "linear/gemv/team", "linear/gemv/gemv_wide")
    return Reading(("weight/rows_wide",), {"": body}, is_unchecked=True)


GEMV_WIDE = GemvWide(
    name="gemv_wide",
    summary="few rows of x, 16-byte loads of the weight",
    layouts={"rows": _rows("linear/common/exact_f32", "linear/gemv/nibbles_integer")},
    measured=(
        Measured(
            ("rows",),
            *(1, 48),
            "Mesa on two cores, 49152 × 576: 15 to 24 ms for 1 row; gemv_int16 and _subnormal 27",
            accuracies=("exact", "fast"),
            software=True,
        ),
        Measured(("rows",), 1, 48, "64 µs for 1 row, no device refuses it"),
    ),
)

GEMV_WIDE_SUBNORMAL = GemvWide(
    name="gemv_wide_subnormal",
    summary="as gemv_wide, nibbles read as half-precision subnormals: fewer instructions",
    layouts={"rows": _rows("linear/gemv/nibbles_subnormal")},
    needs_subnormals=True,
    measured=(
        Measured(
            ("rows",),
            *(1, 48),
            "55 µs for 1 row, 169 for 8, 0.86 ms for 48; gemm takes 0.93 there",
        ),
    ),
)
