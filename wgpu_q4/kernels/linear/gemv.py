"""``gemv``: few rows of x, any K and G, every layout."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel, Measured, Reading
from wgpu_q4.kernels.linear.team import LAST_GEMV_ROWS, team_width
from wgpu_q4.kernels.options import BLOCKS, ROWS
from wgpu_q4.kernels.pieces import weight_pieces

_INVOCATIONS = 128

_ROWS = {"": ("linear/common/exact_f32", "linear/gemv/gemv_rows")}
_BLOCKS = {"": ("scales/four_rows", "linear/gemv/gemv_blocks")}


@dataclass(frozen=True, eq=False, kw_only=True)
class Gemv(LinearKernel):
    """One output, or a strip of 8, for each team of lanes and each row of x."""

    def plan(self, job: Job) -> LinearPlan:
        shape = job.shape
        if job.layout in ROWS:
            team = team_width(shape.embed_dim // 8)
            constants = {"TEAM": team}
            outputs = _INVOCATIONS // team
        else:
            lane_blocks = 4 if shape.group_size % 16 == 0 else 2
            team = team_width(shape.embed_dim // (4 * lane_blocks))
            constants = {"TEAM": team, "LANE_BLOCKS": lane_blocks}
            outputs = _INVOCATIONS // team * 8
        workgroups = -(-shape.vocab // outputs) * job.rows
        return LinearPlan(self.name, self.product(job, constants, workgroups))


GEMV = Gemv(
    name="gemv",
    summary="few rows of x, any K and G that are multiples of 8",
    layouts={
        "rows": Reading(weight_pieces("rows"), _ROWS),
        "rows_embedding": Reading(weight_pieces("rows_embedding"), _ROWS),
        "blocks_buffer": Reading(weight_pieces("blocks_buffer"), _BLOCKS, is_unchecked=True),
        "blocks_texture2d": Reading(weight_pieces("blocks_texture2d"), _BLOCKS),
    },
    multiple=8,
    measured=(
        Measured(
            BLOCKS,
            *(1, LAST_GEMV_ROWS),
            "Mesa on two cores, 49152 × 576: 20 to 26 ms for 1 row; gemv_int16 takes 35",
            software=True,
        ),
        Measured((*ROWS, *BLOCKS), 1, LAST_GEMV_ROWS, "71 µs for 1 row, 56 for each more"),
    ),
)
