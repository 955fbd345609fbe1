"""Which kernel runs, with which constants, on which grid.

This is the one place that decides.  Everything here is arithmetic on shapes and limits, so that a
decision can be read, printed and tested without a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wgpu_q4 import kernels
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import Layout, LinearKernel, OutputDtype, Storage, Variant

DEFAULT_LAYOUT: Layout = "rows"
"""The bytes of a file as they are: no packing step, and on an H200 the fastest for both ops."""

GEMM_FROM_ROWS = 9
"""Rows of x from which the tiled kernel is used.

Below it a GEMV for each row reads the weight from the cache after the first.  Measured on an
H200, V = 128256, K = 2048 (see benchmarks/)."""

_EMBEDDING_QUADS_PER_WORKGROUP = 512
_PACK_BLOCK_PAIRS_PER_WORKGROUP = 64
_GEMV_LANES = 128
_GEMV_TEAM_ROWS = 16


@dataclass(frozen=True)
class MatrixShape:
    """V, K and G of a matrix, and the dtype of its scales."""

    vocab: int
    embed_dim: int
    group_size: int
    scales: ScalesDtype

    @property
    def constants(self) -> dict[str, int]:
        """The pipeline constants of ``shape/overrides.wgsl``."""
        return {
            "VOCAB": self.vocab,
            "EMBED_DIM": self.embed_dim,
            "GROUP_SIZE": self.group_size,
        }


@dataclass(frozen=True)
class Plan:
    """One dispatch."""

    variant: Variant
    constants: Mapping[str, int]
    workgroups: tuple[int, int, int]
    key: tuple[object, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "key", (self.variant.name, *sorted(self.constants.items()))
        )


def fold(workgroups: int, limits: Mapping[str, int]) -> tuple[int, int, int]:
    """At least ``workgroups`` workgroups as (x, y, 1), no dimension over the device's limit.

    Raises:
        DeviceLimitError: more than the limit squared.
    """
    limit = limits["max-compute-workgroups-per-dimension"]
    y = -(-workgroups // limit)
    if y > limit:
        raise DeviceLimitError(f"{workgroups} workgroups exceed {limit} × {limit}")
    return -(-workgroups // y), y, 1


def plan_embedding(
    shape: MatrixShape,
    ids: int,
    layout: Layout,
    output: OutputDtype,
    storage: Storage,
    limits: Mapping[str, int],
) -> Plan:
    """The embedding of ``ids`` ids (at least one)."""
    quads = ids * (shape.embed_dim // 4)
    return Plan(
        kernels.embedding(layout, shape.scales, output, storage),
        shape.constants,
        fold(-(-quads // _EMBEDDING_QUADS_PER_WORKGROUP), limits),
    )


def plan_pack(shape: MatrixShape, layout: Layout, limits: Mapping[str, int]) -> Plan:
    """Rows into blocks."""
    pairs = shape.embed_dim // 8 * -(-shape.vocab // 8)
    return Plan(
        kernels.pack_blocks(layout),
        shape.constants,
        fold(-(-pairs // _PACK_BLOCK_PAIRS_PER_WORKGROUP), limits),
    )


def plan_linear(
    shape: MatrixShape,
    rows: int,
    layout: Layout,
    bias: bool,
    limits: Mapping[str, int],
    kernel: LinearKernel | None = None,
) -> Plan:
    """``x · Wᵀ`` for ``rows`` rows of x (at least one).

    Args:
        kernel: a kernel by name instead of the choice made here.

    Raises:
        ValueError: ``kernel`` cannot do this shape or layout.
    """
    wide = layout == "rows" and shape.embed_dim % 32 == 0 and shape.group_size % 32 == 0
    if kernel == "gemv_wide" and not wide:
        raise ValueError("gemv_wide needs the layout 'rows', and K and G multiples of 32")
    if kernel is None:
        kernel = "gemm" if rows >= GEMM_FROM_ROWS else "gemv_wide" if wide else "gemv"
    variant = kernels.linear(kernel, layout, shape.scales, bias)
    if kernel == "gemm":
        constants, workgroups = _gemm(shape, rows)
    elif kernel == "gemv_wide":
        team = _team(shape.embed_dim // 32)
        constants = {"TEAM": team, "TEAM_ROWS": _GEMV_TEAM_ROWS}
        workgroups = -(-shape.vocab // (_GEMV_LANES // team * _GEMV_TEAM_ROWS)) * rows
    elif layout in ("rows", "rows_embedding"):
        team = _team(shape.embed_dim // 8)
        constants = {"TEAM": team}
        workgroups = -(-shape.vocab // (_GEMV_LANES // team)) * rows
    else:
        lane_blocks = 4 if shape.group_size % 16 == 0 else 2
        team = _team(shape.embed_dim // (4 * lane_blocks))
        constants = {"TEAM": team, "LANE_BLOCKS": lane_blocks}
        workgroups = -(-shape.vocab // (_GEMV_LANES // team * 8)) * rows
    return Plan(variant, shape.constants | constants, fold(workgroups, limits))


def _gemm(shape: MatrixShape, rows: int) -> tuple[dict[str, int], int]:
    # The tall tile has 64 products for 4 loads from workgroup memory; a short one wastes fewer
    # rows when there are few.
    tile_m, tile_n = (128, 64) if rows > 64 else (64, 64) if rows > 32 else (32, 128)
    constants = {
        "TILE_M": tile_m,
        "TILE_N": tile_n,
        "INVOCATIONS": (tile_m // 8) * (tile_n // 8),
    }
    return constants, -(-rows // tile_m) * -(-shape.vocab // tile_n)


def _team(pieces: int) -> int:
    """Lanes that share a row of ``pieces`` loads: a power of two, at most 32, a quarter of them idle at most."""
    widths: tuple[Literal[32, 16, 8, 4, 2, 1], ...] = (32, 16, 8, 4, 2, 1)
    turns = {width: -(-pieces // width) * width for width in widths}
    return next(width for width in widths if turns[width] * 3 <= pieces * 4 or width == 1)
