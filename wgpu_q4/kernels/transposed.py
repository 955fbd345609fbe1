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
"""Workgroups that the sections of a product make, to keep a large device busy with few rows of
y."""

_LEAST_SECTION = 64
"""Rows of the weight that a section has at least; adding the sections up costs more than it brings
below that."""

_ADDED_PER_WORKGROUP = 64

ADD_SECTIONS = Shader(
    "add_sections",
    ("shape/overrides", "linear/transposed/add_sections"),
    "y · W, second dispatch: the sums of the sections of the weight's rows",
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
        products: the product with each part of the weight, over each section of its rows.
        sections: how many sections each part has.
        add: the dispatch that adds the sections up, in the order of the rows; None if there is one.
        section_bytes: bytes that the products write.
    """

    products: tuple[Dispatch, ...]
    sections: tuple[int, ...]
    add: Dispatch | None
    section_bytes: int


def plan_transposed(
    parts: tuple[MatrixShape, ...],
    rows: int,
    limits: Mapping[str, int],
    half_support: HalfSupport,
) -> TransposedPlan:
    """Return the dispatches of ``y · W`` for ``rows`` rows of y (at least one).

    Args:
        parts: the shapes of the parts of the weight, in the order of its rows.
        rows: rows of y.
        limits: the device's limits.
        half_support: what its half-precision functions do.
    """
    embed_dim, y_row = parts[0].embed_dim, sum(part.vocab for part in parts)
    tiles = -(-rows // _ROWS_OF_Y) * -(-embed_dim // _COLUMNS)
    most = limits["max-storage-buffer-binding-size"] // (rows * embed_dim * 4 * len(parts))
    wanted = max(1, min(-(-_WORKGROUPS // (tiles * len(parts))), most))
    products, sections = [], []
    for part in parts:
        section = -(-part.vocab // max(1, min(wanted, part.vocab // _LEAST_SECTION)))
        section += -section % _LANES
        sections.append(-(-part.vocab // section))
        constants = {**part.constants, "SECTION": section}
        if y_row != part.vocab:
            constants["Y_ROW"] = y_row
        shader = transposed_shader(part.scales, half_support.halves)
        products.append(Dispatch(shader, constants, fold(tiles * sections[-1], limits)))
    add = None
    if sum(sections) > 1:
        quads = rows * (embed_dim // 4)
        grid = fold(-(-quads // _ADDED_PER_WORKGROUP), limits)
        add = Dispatch(ADD_SECTIONS, parts[0].constants, grid)
    section_bytes = sum(sections) * rows * embed_dim * 4
    return TransposedPlan(tuple(products), tuple(sections), add, section_bytes)
