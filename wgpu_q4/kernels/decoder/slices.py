"""A product with few tiles, whose columns several workgroups share.

A tile of 64 outputs goes through all columns of x, 16 at a time, and waits for each.  A matrix of
2048 rows has 32 such tiles in a short prompt, which leaves most of a GPU idle: then each tile is
divided into slices of columns, and another dispatch adds their sums up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from wgpu_q4.kernels.decoder.shapes import Matrix
from wgpu_q4.kernels.dispatch import Dispatch, fold
from wgpu_q4.kernels.linear.job import LinearPlan
from wgpu_q4.kernels.linear.tile import TILE_N
from wgpu_q4.kernels.wgsl import Shader

_WORKGROUPS = 512
"""So many keep an H200 busy."""

_LEAST_COLUMNS = 128
"""Of a slice; below, the sums cost more than the columns."""

_MOST = 16
_INVOCATIONS = 256


@dataclass(frozen=True)
class SlicedPlan:
    """What runs for ``x · Wᵀ``.

    Attributes:
        plan: the product.
        slices: workgroups that share a tile, the last of the sizes that the product reads.
        sums: what adds them up, if there are several.
        sum_bytes: what the product writes for it.
    """

    plan: LinearPlan
    slices: int = 1
    sums: Dispatch | None = None
    sum_bytes: int = 0


def slices_of(plan: LinearPlan, matrix: Matrix, rows: int, software: bool) -> int:
    """Return how many workgroups should share a tile of ``rows`` rows of x.

    That is one on a processor, and for a kernel without tiles.
    """
    if software or "linear/gemm/gemm" not in plan.product.shader.pieces:
        return 1
    most = min(matrix.shape.embed_dim // _LEAST_COLUMNS, _MOST)
    return max(1, min(_WORKGROUPS // _tiles(plan, matrix, rows), most))


def _tiles(plan: LinearPlan, matrix: Matrix, rows: int) -> int:
    return -(-rows // plan.product.constants["TILE_M"]) * -(-matrix.shape.vocab // TILE_N)


@cache
def sums_shader(bias: bool) -> Shader:
    """Return the kernel that adds the sums of slices up."""
    kind = "buffer" if bias else "none"
    return Shader(
        f"decoder_sum_slices{'_bias' if bias else ''}",
        ("decoder/state", f"linear/common/bias_{kind}", "decoder/sum_slices"),
        f"the sums of a product's slices of columns, added up{', plus a bias' if bias else ''}",
    )


def plan_sums(
    width: int, rows: int, slices: int, bias: bool, limits: Mapping[str, int]
) -> Dispatch:
    """Return the dispatch that adds the sums of slices up, for up to ``rows`` rows of ``width``."""
    grid = fold(-(-rows * width // 4 // _INVOCATIONS), limits)
    return Dispatch(sums_shader(bias), {"WIDTH": width, "SLICES": slices}, grid)


def plan_slices(
    plan: LinearPlan,
    matrix: Matrix,
    rows: int,
    bias: bool,
    limits: Mapping[str, int],
    slices: int,
) -> SlicedPlan:
    """Return a product of the kernel ``gemm``, or of another type of weight, in slices.

    Args:
        plan: the product, without a bias.
        matrix: the weight.
        rows: the most rows there may be.
        bias: True if a bias is added.
        limits: the device's limits.
        slices: the workgroups that share a tile, at least 2.
    """
    product, vocab = plan.product, matrix.shape.vocab
    sum_bytes = slices * rows * vocab * 4
    needs = None if product.needs is None else {**product.needs, "t_out": sum_bytes}
    sliced = replace(
        product,
        workgroups=fold(_tiles(plan, matrix, rows) * slices, limits),
        needs=needs,
    )
    sums = plan_sums(vocab, rows, slices, bias, limits)
    return SlicedPlan(replace(plan, product=sliced), slices, sums, sum_bytes)
