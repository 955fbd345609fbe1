"""``y · W``: the transposed product, as the gradient of ``x · Wᵀ`` needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.options import Halves
from wgpu_q4.kernels.pieces import halves_suffix, scales_pieces, weight_pieces
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_COLUMNS = 256
_ROWS_OF_Y = 4
_LANES = 4
_WORKGROUPS = 1024
"""Workgroups that the parts of a product make, to keep a large device busy with few rows of y."""

_LEAST_PART = 64
"""Rows of the weight that a part has at least; adding the parts up costs more than it brings
below that."""

_ADDED_PER_WORKGROUP = 64

ADD_PARTS = Shader(
    "add_parts",
    ("shape/overrides", "linear/transposed/add_parts"),
    "y · W, second dispatch: the sums of the parts of the weight's rows",
)


@cache
def transposed_shader(scales: ScalesDtype, halves: Halves = "native") -> Shader:
    """Return the kernel of ``y · W`` for a weight in rows with ``scales`` of that dtype.

    Raises:
        KernelError: there is no such dtype.
    """
    pieces = (
        *scales_pieces(scales, halves),
        "shape/overrides",
        *weight_pieces("rows"),
        "linear/common/exact_f32",
        "linear/transposed/transposed",
    )
    name = f"linear_transposed_q4gsw_rows_{scales}_scales{halves_suffix(pieces)}"
    return Shader(name, pieces, "y · W: the transposed product, for a weight in rows")


@dataclass(frozen=True)
class TransposedPlan:
    """What runs for ``y · W``.

    Attributes:
        product: the product, over each part of the rows of the weight.
        add: the dispatch that adds the parts up; None if there is one part.
        parts: how many.
        part_bytes: bytes that the product writes.
    """

    product: Dispatch
    add: Dispatch | None
    parts: int
    part_bytes: int


def plan_transposed(
    shape: MatrixShape, rows: int, limits: Mapping[str, int], half_support: HalfSupport
) -> TransposedPlan:
    """Return the dispatches of ``y · W`` for ``rows`` rows of y (at least one)."""
    tiles = -(-rows // _ROWS_OF_Y) * -(-shape.embed_dim // _COLUMNS)
    wanted = max(1, min(-(-_WORKGROUPS // tiles), shape.vocab // _LEAST_PART))
    part = -(-shape.vocab // wanted)
    part += -part % _LANES
    parts = -(-shape.vocab // part)
    shader = transposed_shader(shape.scales, half_support.halves)
    constants = {**shape.constants, "PART": part}
    product = Dispatch(shader, constants, fold(tiles * parts, limits))
    add = None
    if parts > 1:
        quads = rows * (shape.embed_dim // 4)
        grid = fold(-(-quads // _ADDED_PER_WORKGROUP), limits)
        add = Dispatch(ADD_PARTS, shape.constants, grid)
    return TransposedPlan(product, add, parts, parts * rows * shape.embed_dim * 4)
