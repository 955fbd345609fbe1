"""``gemm_matrix``: many rows of x on a device's matrix units, in half precision."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel, Measured, Reading
from wgpu_q4.kernels.options import Halves
from wgpu_q4.kernels.pieces import halves_suffix, ways_to_convert
from wgpu_q4.kernels.traits import MatrixUnits
from wgpu_q4.kernels.wgsl import Shader

_TILES = ((32, 2, "16x64"), (64, 2, "32x64"), (128, 4, "32x128"))
"""Rows of x of a workgroup, subgroups among which these are divided, what each of them computes:
rows of x × outputs, the name of a form."""

_TILE_N = 128
_DEPTH = 64
_WORKGROUP_BYTES = 128 * 72 * 2 + 4 * 16 * 20 * 4 + 128 * 4
"""The staged weight, a matrix of sums for each of four subgroups, a factor for each row of x."""


@cache
def halve_x_shader(halves: Halves) -> Shader:
    """Return the pass that rounds x to half precision, in tiles, each row with its own scale."""
    pieces = ("shape/overrides", f"half/{halves}", "linear/matrix_units/halve_x")
    name = f"halve_x{halves_suffix(pieces)}"
    return Shader(name, pieces, "x in half precision, for gemm_matrix")


@dataclass(frozen=True, eq=False, kw_only=True)
class GemmMatrix(LinearKernel):
    """A tile of rows of x × 128 outputs for each workgroup, the lowest that holds all rows."""

    def preparations(self) -> Iterator[Shader]:
        yield from map(halve_x_shader, ways_to_convert(used=True))

    def device_needed(self) -> str:
        return (
            f"a device with matrix units for 16 × 16 halves, sums in float32, subgroups of 32, and "
            f"{_WORKGROUP_BYTES:,} bytes of workgroup memory. Dawn offers them: install wgpudawn, "
            f"set WGPU_Q4_IMPLEMENTATION=wgpudawn, and see what 'wgpu-q4 info' says"
        )

    def plan(self, job: Job) -> LinearPlan:
        rows, subgroups, form = next((tile for tile in _TILES if job.rows <= tile[0]), _TILES[-1])
        padded = -(-job.rows // rows) * rows
        padded_dim = -(-job.shape.embed_dim // _DEPTH) * _DEPTH
        workgroups = padded // rows * -(-job.shape.vocab // _TILE_N)
        product = self.product(job, {"SUBGROUPS_M": subgroups}, workgroups, form=form)
        halve = job.dispatch(halve_x_shader(job.halves), {"PADDED_DIM": padded_dim}, padded)
        return LinearPlan(self.name, product, halve, padded, padded * padded_dim * 2, padded * 4)


def usable_units(
    matrix_units: Collection[MatrixUnits], limits: Mapping[str, int]
) -> Collection[MatrixUnits]:
    """Return ``matrix_units``, or none if a workgroup has too little memory for the kernel."""
    return matrix_units if limits["max-compute-workgroup-storage-size"] >= _WORKGROUP_BYTES else ()


def _bodies(stage: str) -> dict[str, tuple[str, ...]]:
    folder = "linear/matrix_units"
    return {
        form: (f"{folder}/tile_{form}", f"{folder}/gemm", f"{folder}/{stage}")
        for _, _, form in _TILES
    }


GEMM_MATRIX = GemmMatrix(
    name="gemm_matrix",
    summary="many rows of x on matrix units, x and the weight rounded to half precision",
    layouts={
        "rows": Reading(("weight/rows_wide",), _bodies("stage_rows")),
        "blocks_buffer": Reading(("weight/blocks_buffer",), _bodies("stage_blocks")),
    },
    x_type="float16",
    needs_matrix_units=True,
    first=("linear/matrix_units/extensions",),
    measured=(
        Measured(
            ("rows",),
            *(9, None),
            "0.17 ms for up to 32 rows, 0.32 for 128, 1.22 for 512 (220 TFLOP/s), on Dawn",
        ),
        Measured(
            ("blocks_buffer",),
            *(5, None),
            "0.18 ms for up to 32 rows, 0.32 for 128, 1.20 for 512 (224 TFLOP/s), on Dawn",
        ),
    ),
)
