"""``gemm_int8``: many rows of x, rounded to integers of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from wgpu_q4.kernels.linear.gemv_integers import Order
from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel, Measured, Reading
from wgpu_q4.kernels.linear.team import LAST_GEMV_ROWS
from wgpu_q4.kernels.linear.tile import tile_rows, tiles
from wgpu_q4.kernels.options import BLOCKS, ROWS
from wgpu_q4.kernels.pieces import weight_pieces
from wgpu_q4.kernels.wgsl import Shader

_HEIGHTS = (128, 64)
_ROW_BYTES = 32 + 8
"""Workgroup memory of a row of x: 32 columns, their scale and offset."""
_OUTPUT_BYTES = 32 + 4
"""Workgroup memory of an output: 32 nibbles, a byte each, and their scale."""


@cache
def quantize_columns_shader(order: Order) -> Shader:
    """Return the pass that rounds x to integers, columns first."""
    return Shader(
        f"quantize_columns_for_{order}",
        (
            "shape/overrides",
            f"linear/common/integers_order_{order}",
            "linear/common/quantize",
            "linear/gemm_integers/quantize_columns",
        ),
        f"x as integers of 8 bits, for gemm_int8 on {order}",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class GemmIntegers(LinearKernel):
    """A tile of rows of x × 64 outputs for each workgroup."""

    def preparations(self) -> Iterator[Shader]:
        yield quantize_columns_shader("rows")
        yield quantize_columns_shader("blocks")

    def plan(self, job: Job) -> LinearPlan:
        rows = tile_rows(job, _HEIGHTS, _ROW_BYTES, _OUTPUT_BYTES)
        padded = -(-job.rows // rows) * rows
        chunks = padded * job.chunks
        order: Order = "blocks" if job.layout in BLOCKS else "rows"
        prepare = job.prepare(quantize_columns_shader(order), chunks, {"PLANES": 1})
        x_bytes, x_scale_bytes = chunks * 32, chunks * 8
        product = self.product(
            *(job, {"TILE_M": rows}, tiles(job, padded, rows)),
            x_bytes=x_bytes,
            x_scale_bytes=x_scale_bytes,
        )
        return LinearPlan(self.name, product, prepare, padded, x_bytes, x_scale_bytes)


def _bodies(order: Order) -> dict[str, tuple[str, ...]]:
    folder = "linear/gemm_integers"
    return {"": ("linear/common/gemm_tile", f"{folder}/gemm", f"{folder}/stage_{order}")}


GEMM_INT8 = GemmIntegers(
    name="gemm_int8",
    summary="many rows of x as integers of 8 bits",
    layouts={
        "rows": Reading(weight_pieces("rows"), _bodies("rows"), is_unchecked=True),
        "rows_embedding": Reading(
            weight_pieces("rows_embedding"), _bodies("rows"), is_unchecked=True
        ),
        "blocks_buffer": Reading(
            weight_pieces("blocks_buffer"), _bodies("blocks"), is_unchecked=True
        ),
        "blocks_texture2d": Reading(weight_pieces("blocks_texture2d"), _bodies("blocks")),
    },
    x_type="int8",
    measured=(
        Measured(
            (*ROWS, *BLOCKS),
            *(LAST_GEMV_ROWS + 1, None),
            "0.50 ms for up to 64 rows, 0.92 for 128 (73 TFLOP/s), 3.38 for 512",
        ),
    ),
)
