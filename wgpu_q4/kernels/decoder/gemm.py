"""A product with many rows of x and a weight in half precision, in the tiles of ``gemm``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wgpu_q4.kernels.decoder.shapes import two_halves_pieces
from wgpu_q4.kernels.dispatch import MatrixShape
from wgpu_q4.kernels.linear.gemm import TRANSPOSE_X
from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.tile import tile_rows, tiles
from wgpu_q4.kernels.pieces import halves_suffix
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_HEIGHTS = (128, 64, 32)
_COLUMN_BYTES = 4 * 16
"""Workgroup memory of a row of x, or of an output: 16 columns in float32."""


@cache
def gemm_shader(bias: bool, half_support: HalfSupport) -> Shader:
    """Return the tiled product with a weight in half precision."""
    pieces = (
        "shape/overrides",
        *two_halves_pieces(half_support),
        "linear/common/bias_buffer" if bias else "linear/common/bias_none",
        "linear/common/result",
        "linear/common/gemm_tile",
        "linear/gemm/gemm",
        "decoder/stage_halves",
    )
    return Shader(
        f"decoder_gemm_float16{'_bias' if bias else ''}{halves_suffix(pieces)}",
        pieces,
        f"many rows of x times a weight in half precision{', plus a bias' if bias else ''}",
    )


def plan_gemm_halves(
    shape: MatrixShape,
    rows: int,
    bias: bool,
    limits: Mapping[str, int],
    half_support: HalfSupport,
) -> LinearPlan:
    """Return the dispatches of ``x · Wᵀ`` for up to ``rows`` rows of x and a weight in float16.

    Args:
        shape: V and K, a multiple of 8; G means nothing.
        rows: the most rows there may be.
        bias: True if a bias is added.
        limits: the device's limits.
        half_support: what its half-precision functions do.
    """
    job = Job(shape, rows, "rows", bias, limits, half_support, shape.vocab)
    height = tile_rows(job, _HEIGHTS, _COLUMN_BYTES, _COLUMN_BYTES)
    padded = -(-rows // height) * height
    shader = gemm_shader(bias, half_support)
    x_bytes = padded * shape.embed_dim * 4
    needs = {
        "t_out": rows * shape.vocab * 4,
        "t_x": x_bytes,
        "t_weight": shape.vocab * shape.embed_dim * 2,
        "sizes": 16,
        **({"t_bias": shape.vocab * 4} if bias else {}),
    }
    product = job.dispatch(shader, {"TILE_M": height}, tiles(job, padded, height), needs)
    prepare = job.prepare(TRANSPOSE_X, padded // 4 * (shape.embed_dim // 4))
    return LinearPlan("gemm_float16", product, prepare, padded, x_bytes)
