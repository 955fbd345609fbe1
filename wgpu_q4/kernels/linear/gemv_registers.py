"""``gemv_registers``: one row of x, held in registers for eight rows of the weight."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel, Measured, Reading
from wgpu_q4.kernels.pieces import nibbles_pieces

_INVOCATIONS = 256
_TEAM_ROWS = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class GemvRegisters(LinearKernel):
    """Eight outputs for each team of lanes, whose sums are exchanged within subgroups."""

    def plan(self, job: Job) -> LinearPlan:
        lanes = max(job.subgroup, 64 if job.chunks > 32 else 32)
        constants = {
            "INVOCATIONS": _INVOCATIONS,
            "TEAM": lanes,
            "LANE_ROWS": _TEAM_ROWS,
            "SUBGROUP": job.subgroup,
        }
        workgroups = -(-job.shape.vocab // (_INVOCATIONS // lanes * _TEAM_ROWS))
        return LinearPlan(self.name, self.product(job, constants, workgroups))


GEMV_REGISTERS = GemvRegisters(
    name="gemv_registers",
    summary="one row of x in registers, nibbles by half-precision arithmetic",
    layouts={
        "rows": Reading(
            ("weight/rows_wide",),
            {
                "": (
                    *nibbles_pieces("f16"),
                    *("decoder/gemv/dot_nibbles", "decoder/gemv/weight_q4gsw"),
                    "decoder/gemv/prologue_none",
                    *("decoder/gemv/epilogue_store", "decoder/gemv/gemv"),
                    *("decoder/gemv/fold_subgroup", "decoder/gemv/x_in_rows"),
                )
            },
            is_unchecked=True,
        )
    },
    first=("half/enable_f16",),
    most_rows=1,
    needs_arithmetic=True,
    needs_subgroups=True,
    measured=(Measured(("rows",), 1, 1, "53 µs for 1 row; gemv_wide_subnormal takes 55 there"),),
)
