"""``gemm``: many rows of x, any K and G, every layout, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel, Measured, Reading
from wgpu_q4.kernels.linear.team import LAST_GEMV_ROWS
from wgpu_q4.kernels.linear.tile import tile_rows, tiles
from wgpu_q4.kernels.options import BLOCKS, ROWS
from wgpu_q4.kernels.pieces import weight_pieces
from wgpu_q4.kernels.wgsl import Shader

_HEIGHTS = (128, 64, 32)
_COLUMN_BYTES = 4 * 16
"""Workgroup memory of a row of x, or of an output: 16 columns in float32."""

TRANSPOSE_X = Shader(
    "transpose_x", ("shape/overrides", "linear/gemm/transpose_x"), "x transposed, for gemm"
)

_ROWS = {
    "": (
        "linear/common/exact_f32",
        "linear/common/gemm_tile",
        "linear/gemm/gemm",
        "linear/gemm/stage_rows",
    )
}
_BLOCKS = {
    "": (
        "scales/four_rows",
        "linear/common/gemm_tile",
        "linear/gemm/gemm",
        "linear/gemm/stage_blocks",
    )
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Gemm(LinearKernel):
    """A tile of rows of x × 64 outputs for each workgroup."""

    def preparations(self) -> Iterator[Shader]:
        yield TRANSPOSE_X

    def plan(self, job: Job) -> LinearPlan:
        rows = tile_rows(job, _HEIGHTS, _COLUMN_BYTES, _COLUMN_BYTES)
        padded = -(-job.rows // rows) * rows
        prepare = job.prepare(TRANSPOSE_X, padded // 4 * (job.shape.embed_dim // 4))
        x_bytes = padded * job.shape.embed_dim * 4
        product = self.product(job, {"TILE_M": rows}, tiles(job, padded, rows), x_bytes=x_bytes)
        return LinearPlan(self.name, product, prepare, padded, x_bytes)


GEMM = Gemm(
    name="gemm",
    summary="many rows of x, any K and G that are multiples of 8",
    layouts={
        "rows": Reading(weight_pieces("rows"), _ROWS, is_unchecked=True),
        "rows_embedding": Reading(weight_pieces("rows_embedding"), _ROWS, is_unchecked=True),
        "blocks_buffer": Reading(weight_pieces("blocks_buffer"), _BLOCKS),
        "blocks_texture2d": Reading(weight_pieces("blocks_texture2d"), _BLOCKS),
    },
    multiple=8,
    measured=(
        Measured(
            (*ROWS, *BLOCKS),
            *(LAST_GEMV_ROWS + 1, None),
            "0.58 ms for up to 32 rows, 0.93 for 64, 1.63 for 128 (41 TFLOP/s), 6.09 for 512",
        ),
    ),
)
