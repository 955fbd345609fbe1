"""Teams: the lanes of a workgroup that share a row of the weight in a GEMV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from wgpu_q4.kernels.linear.job import Job

LAST_GEMV_ROWS = 9
"""Rows of x up to which a GEMV is taken where none unpacks a weight for several of them."""

TeamShapes = Mapping[int, tuple[int, int]]
"""Invocations of a workgroup and its widest team by rows of x at once; 8 stands for those that are
not named.  They are what was fastest on an H200, by up to 15 %."""


def team_width(loads: int) -> int:
    """Return the lanes that share a row of ``loads`` loads: a power of two up to 32, few idle."""
    widths: tuple[Literal[32, 16, 8, 4, 2, 1], ...] = (32, 16, 8, 4, 2, 1)
    turns = {width: -(-loads // width) * width for width in widths}
    return next(width for width in widths if turns[width] * 3 <= loads * 4 or width == 1)


def team_constants(job: Job, shapes: TeamShapes) -> dict[str, int]:
    """Return the constants of ``linear/gemv/team.wgsl``: up to 8 rows of x at once."""
    x_rows = next((few for few in (1, 2, 4) if job.rows <= few), 8)
    invocations, widest = shapes.get(x_rows, shapes[8])
    team = min(widest, max(4, team_width(job.chunks)))
    return {"INVOCATIONS": invocations, "TEAM": team, "X_ROWS": x_rows}


def team_outputs(constants: Mapping[str, int]) -> int:
    """Return the outputs that the teams of a workgroup compute for each row of x."""
    return constants["INVOCATIONS"] // constants["TEAM"] * 4
