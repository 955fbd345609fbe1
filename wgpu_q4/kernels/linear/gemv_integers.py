"""``gemv_int16`` and ``gemv_int8``: few rows of x, rounded to integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel, Measured, Reading
from wgpu_q4.kernels.linear.team import (
    LAST_GEMV_ROWS,
    TeamShapes,
    team_constants,
    team_outputs,
    team_width,
)
from wgpu_q4.kernels.options import BLOCKS, Layout
from wgpu_q4.kernels.wgsl import Shader

Order = Literal["rows", "blocks"]
"""The order in which integers of x lie beside a weight in rows or in blocks."""

PREPARED = "prepared"
"""The form whose x is quantized by a pass before it."""

_BLOCK_INVOCATIONS = 256


@cache
def quantize_x_shader(order: Order) -> Shader:
    """Return the pass that rounds x to integers, a row after the other."""
    return Shader(
        f"quantize_x_for_{order}",
        (
            "shape/overrides",
            f"linear/common/integers_order_{order}",
            "linear/common/quantize",
            "linear/gemv_integers/quantize_x",
        ),
        f"x as integers, for gemv_int16 and gemv_int8 on {order}",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class GemvIntegers(LinearKernel):
    """Four outputs (rows) or 8 (blocks) for each team of lanes.

    For one row of x, each workgroup rounds it for itself where its integers find room in workgroup
    memory; else a pass rounds x first.

    Attributes:
        teams: the shapes of a workgroup on rows.
    """

    teams: TeamShapes

    @property
    def planes(self) -> int:
        """Bytes of an integer."""
        return 2 if self.x_type == "int16" else 1

    def preparations(self) -> Iterator[Shader]:
        yield quantize_x_shader("rows")
        yield quantize_x_shader("blocks")

    def plan(self, job: Job) -> LinearPlan:
        return self._plan_blocks(job) if job.layout in BLOCKS else self._plan_rows(job)

    def _plan_rows(self, job: Job) -> LinearPlan:
        constants = team_constants(job, self.teams)
        constants["PLANES"] = self.planes
        x_rows, outputs = constants["X_ROWS"], team_outputs(constants)
        here = x_rows == 1 and self._quantizes_here(job, 16 * constants["INVOCATIONS"])
        constants["TILES"] = tiles = _row_tiles(job.shape.vocab // outputs) if here else 1
        parts = -(-job.rows // x_rows)
        workgroups = -(-job.shape.vocab // (outputs * tiles)) * parts
        if here:
            return self._quantized_here(job, constants, workgroups)
        return self._quantized_before(job, constants, workgroups, parts * x_rows, "rows")

    def _plan_blocks(self, job: Job) -> LinearPlan:
        team = min(16, max(2, team_width(2 * job.chunks)))
        constants = {"INVOCATIONS": _BLOCK_INVOCATIONS, "TEAM": team, "PLANES": self.planes}
        here = job.rows == 1 and self._quantizes_here(job, 32 * _BLOCK_INVOCATIONS)
        constants["TILES"] = tiles = 2 if here and self.planes == 1 else 1
        outputs = _BLOCK_INVOCATIONS // team * 8
        workgroups = -(-job.shape.vocab // (outputs * tiles)) * job.rows
        if here:
            return self._quantized_here(job, constants, workgroups)
        return self._quantized_before(job, constants, workgroups, job.rows, "blocks")

    def _quantizes_here(self, job: Job, other_bytes: int) -> bool:
        """Tell if a workgroup's memory has room for the integers of one row of x."""
        x_bytes = (32 * self.planes + 16) * job.chunks
        return x_bytes + other_bytes <= job.limits["max-compute-workgroup-storage-size"]

    def _quantized_here(
        self, job: Job, constants: Mapping[str, int], workgroups: int
    ) -> LinearPlan:
        x = {"CHUNKS": job.chunks, "VECTORS": 2 * self.planes * job.chunks}
        return LinearPlan(self.name, self.product(job, {**constants, **x}, workgroups))

    def _quantized_before(
        self, job: Job, constants: Mapping[str, int], workgroups: int, padded: int, order: Order
    ) -> LinearPlan:
        chunks = padded * job.chunks
        x_bytes = chunks * 32 * self.planes
        x_scale_bytes = chunks * (8 if order == "rows" else 16)
        product = self.product(
            *(job, constants, workgroups),
            form=PREPARED,
            x_bytes=x_bytes,
            x_scale_bytes=x_scale_bytes,
        )
        prepare = job.prepare(quantize_x_shader(order), chunks, {"PLANES": self.planes})
        return LinearPlan(self.name, product, prepare, padded, x_bytes, x_scale_bytes)


def _row_tiles(workgroups: int) -> int:
    """Return the row tiles that a workgroup does one after another: four, where hundreds remain."""
    return next((tiles for tiles in (4, 2) if workgroups >= 400 * tiles), 1)


def _bodies(order: Order, *, before: tuple[str, ...] = (), last: str) -> dict[str, tuple[str, ...]]:
    folder, in_order = "linear/gemv_integers", f"linear/common/integers_order_{order}"
    return {
        "": (*before, in_order, "linear/common/quantize", f"{folder}/integers_here", last),
        PREPARED: (*before, in_order, f"{folder}/integers_before", last),
    }


_ROWS = _bodies("rows", before=("linear/gemv/team",), last="linear/gemv_integers/gemv_rows")
_BLOCKS = _bodies("blocks", before=("scales/four_rows",), last="linear/gemv_integers/gemv_blocks")
_LAYOUTS: dict[Layout, Reading] = {
    "rows": Reading(("weight/rows_wide",), _ROWS, is_unchecked=True),
    "blocks_buffer": Reading(("weight/blocks_buffer",), _BLOCKS, is_unchecked=True),
    "blocks_texture2d": Reading(("weight/blocks_texture2d",), _BLOCKS),
}

GEMV_INT16 = GemvIntegers(
    name="gemv_int16",
    summary="few rows of x as integers of 16 bits",
    layouts=_LAYOUTS,
    x_type="int16",
    teams={1: (256, 16), 8: (128, 8)},
    measured=(
        Measured(
            ("rows",),
            *(1, 48),
            "45 µs for 1 row, 145 for 8, 0.83 ms for 48; gemm takes 0.93 there",
            accuracies=("fast",),
        ),
        Measured(BLOCKS, 1, LAST_GEMV_ROWS, "52 µs for 1 row", accuracies=("fast",)),
    ),
)

GEMV_INT8 = GemvIntegers(
    name="gemv_int8",
    summary="few rows of x as integers of 8 bits",
    layouts=_LAYOUTS,
    x_type="int8",
    teams={1: (256, 16), 4: (256, 16), 8: (128, 8)},
    measured=(
        Measured(
            ("rows",),
            *(1, 48),
            "44 µs for 1 row, 87 for 8, 0.41 ms for 48; gemm_int8 takes 0.50 there",
        ),
        Measured(BLOCKS, 1, LAST_GEMV_ROWS, "46 µs for 1 row"),
    ),
)
