"""A product with many rows of x and a weight that is not q4gsw.

A GPU computes it in the tiles of ``gemm``; an invocation of a processor has rows of the weight for
itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wgpu_q4.kernels.decoder.shapes import Matrix, WeightType, two_halves_pieces
from wgpu_q4.kernels.linear.gemm import TRANSPOSE_X
from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.tile import tile_rows, tiles
from wgpu_q4.kernels.pieces import halves_suffix
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_HEIGHTS = (128, 64, 32)
_COLUMN_BYTES = 4 * 16
"""Workgroup memory of a row of x, or of an output: 16 columns in float32."""

_WEIGHTS: Mapping[WeightType, tuple[str, tuple[str, ...]]] = {
    "affine4": ("a weight in 4 bits with offsets", ("decoder/pairs", "decoder/eight_affine4")),
    "affine8": ("a weight in 8 bits with offsets", ("decoder/pairs", "decoder/eight_affine8")),
    "float16": ("a weight in half precision", ("decoder/eight_halves",)),
}
"""In words, and the pieces that read eight columns."""


_LANES = 8
"""Lanes of a subgroup, at least, that share what they load of x on a processor."""

_LANE_ROWS, _LANES_OUTPUTS = 8, 32
"""Rows of x, and outputs, that a workgroup computes there."""


@cache
def gemm_shader(
    weight: WeightType, bias: bool, half_support: HalfSupport, lanes: bool = False
) -> Shader:
    """Return the product with a weight of that type, in tiles or, for a processor, by ``lanes``."""
    said, eights = _WEIGHTS[weight]
    tiles_or_lanes: tuple[str, ...] = ("decoder/gemm_lanes",)
    if not lanes:
        tiles_or_lanes = ("linear/common/gemm_tile", "linear/gemm/gemm", "decoder/stage_eights")
    pieces = (
        "shape/overrides",
        *two_halves_pieces(half_support),
        *eights,
        "linear/common/bias_buffer" if bias else "linear/common/bias_none",
        "linear/common/result",
        *tiles_or_lanes,
    )
    words = "_lanes" if lanes else "", "_bias" if bias else "", halves_suffix(pieces)
    return Shader(
        f"decoder_gemm_{weight}{''.join(words)}",
        pieces,
        f"many rows of x times {said}{', plus a bias' if bias else ''}",
    )


def plan_gemm(
    matrix: Matrix,
    rows: int,
    bias: bool,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    *,
    software: bool = False,
    subgroup: int = 0,
) -> LinearPlan:
    """Return the dispatches of ``x · Wᵀ`` for up to ``rows`` rows of x.

    Args:
        matrix: the weight, of another type than q4gsw; K is a multiple of 32.
        rows: the most rows there may be.
        bias: True if a bias is added.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        software: True if the device runs on the processor.
        subgroup: lanes of the device's subgroups, if they are known and in order; else 0.
    """
    shape = matrix.shape
    job = Job(shape, rows, "rows", bias, limits, half_support, 0, shape.vocab)
    lanes = software and subgroup >= _LANES
    height = _LANE_ROWS
    if not lanes:
        height = tile_rows(job, _HEIGHTS, _COLUMN_BYTES, _COLUMN_BYTES)
    padded = -(-rows // height) * height
    shader = gemm_shader(matrix.type, bias, half_support, lanes)
    if lanes:
        workgroups = padded // height * -(-shape.vocab // _LANES_OUTPUTS)
        needs = _needs(matrix, rows, bias, rows)
        return LinearPlan(
            f"gemm_{matrix.type}_lanes", job.dispatch(shader, {}, workgroups, needs), None, padded
        )
    x_bytes = padded * shape.embed_dim * 4
    needs = _needs(matrix, rows, bias, padded)
    product = job.dispatch(shader, {"TILE_M": height}, tiles(job, padded, height), needs)
    prepare = job.prepare(TRANSPOSE_X, padded // 4 * (shape.embed_dim // 4))
    return LinearPlan(f"gemm_{matrix.type}", product, prepare, padded, x_bytes)


def _needs(matrix: Matrix, rows: int, bias: bool, x_rows: int) -> dict[str, int]:
    """Return the bytes that each buffer must hold, by the binding's name."""
    shape = matrix.shape
    return {
        "t_out": rows * shape.vocab * 4,
        "t_x": x_rows * shape.embed_dim * 4,
        "t_weight": matrix.nbytes,
        "sizes": 16,
        **({"t_pairs": matrix.pair_bytes} if matrix.pair_bytes else {}),
        **({"t_bias": shape.vocab * 4} if bias else {}),
    }
