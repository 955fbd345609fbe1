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
from wgpu_q4.kernels import Accuracy, Halves, Layout, LinearKernel, OutputDtype, Storage, Variant

DEFAULT_LAYOUT: Layout = "rows"
"""The bytes of a file as they are: no packing step, and on an H200 the fastest for both ops."""

GEMM_FROM_ROWS = 17
"""Rows of x from which the tiled kernel is used where a wide GEMV could be.

On an H200 (V = 128256, K = 2048) it takes 0.81 ms for up to 32 rows.  A wide GEMV takes 0.064 ms
for the first row of x, which reads the weight from memory, and 0.044 ms for each further one."""

GEMM_FROM_ROWS_OTHERWISE = 12
"""The same for the other layouts and shapes, whose GEMV takes 0.062 ms for each further row."""

_EMBEDDING_QUADS_PER_WORKGROUP = 512
_PACK_BLOCK_PAIRS_PER_WORKGROUP = 64
_TRANSPOSE_SQUARES_PER_WORKGROUP = 64
_GEMV_LANES = 128
_GEMV_TEAM_ROWS = 16
_GEMM_TILES = ((128, 128), (64, 128), (32, 128))


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
class HalfSupport:
    """What a device's built-in half-precision functions do, as a probe found out.

    Attributes:
        subnormals: ``unpack2x16float`` keeps subnormals.
        rounding: ``pack2x16float`` rounds to nearest even, overflows to infinity and keeps
            subnormals.
    """

    subnormals: bool = False
    rounding: bool = False

    @property
    def halves(self) -> Halves:
        """Which conversions to use."""
        return "native" if self.subnormals and self.rounding else "integer"


@dataclass(frozen=True)
class Plan:
    """One dispatch."""

    variant: Variant
    constants: Mapping[str, int]
    workgroups: tuple[int, int, int]
    key: tuple[object, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.variant.name, *sorted(self.constants.items())))


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
    half_support: HalfSupport,
) -> Plan:
    """The embedding of ``ids`` ids (at least one)."""
    quads = ids * (shape.embed_dim // 4)
    return Plan(
        kernels.embedding(layout, shape.scales, output, storage, half_support.halves),
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


@dataclass(frozen=True)
class LinearPlan:
    """What runs for ``x · Wᵀ``.

    Attributes:
        product: the matrix product.
        transpose: for the tiled kernel, the dispatch that first transposes x.
        padded_rows: rows of the transposed x.
    """

    product: Plan
    transpose: Plan | None = None
    padded_rows: int = 0


def plan_linear(
    shape: MatrixShape,
    rows: int,
    layout: Layout,
    bias: bool,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    kernel: LinearKernel | None = None,
    accuracy: Accuracy = "exact",
) -> LinearPlan:
    """``x · Wᵀ`` for ``rows`` rows of x (at least one).

    Args:
        accuracy: the least that the kernel chosen must reach; a better one may be faster.
        kernel: a kernel by name instead of the choice made here.

    Raises:
        ValueError: ``kernel`` cannot do this shape, layout or device.
    """
    wide = layout == "rows" and shape.embed_dim % 32 == 0 and shape.group_size % 32 == 0
    if kernel is None:
        kernel = _choose_linear(rows, wide, half_support.subnormals)
    if kernel.startswith("gemv_wide") and not wide:
        raise ValueError(f"{kernel} needs the layout 'rows', and K and G multiples of 32")
    if kernel == "gemv_wide_subnormal" and not half_support.subnormals:
        raise ValueError(f"{kernel} needs a device that keeps half-precision subnormals")
    variant = kernels.linear(kernel, layout, shape.scales, bias, half_support.halves)

    def plan(constants: dict[str, int], workgroups: int) -> Plan:
        return Plan(variant, shape.constants | constants, fold(workgroups, limits))

    if kernel == "gemm":
        tile_m, tile_n = _gemm_tile(rows, limits)
        padded = -(-rows // tile_m) * tile_m
        squares = padded // 4 * (shape.embed_dim // 4)
        transpose = Plan(
            kernels.TRANSPOSE_X,
            shape.constants,
            fold(-(-squares // _TRANSPOSE_SQUARES_PER_WORKGROUP), limits),
        )
        constants = {
            "TILE_M": tile_m,
            "TILE_N": tile_n,
            "INVOCATIONS": (tile_m // 8) * (tile_n // 8),
        }
        tiles = padded // tile_m * -(-shape.vocab // tile_n)
        return LinearPlan(plan(constants, tiles), transpose, padded)
    if kernel != "gemv":
        team = max(4, _team(shape.embed_dim // 32))
        constants = {"TEAM": team, "TEAM_ROWS": _GEMV_TEAM_ROWS}
        outputs = _GEMV_LANES // team * _GEMV_TEAM_ROWS
    elif layout.startswith("rows"):
        team = _team(shape.embed_dim // 8)
        constants = {"TEAM": team}
        outputs = _GEMV_LANES // team
    else:
        lane_blocks = 4 if shape.group_size % 16 == 0 else 2
        team = _team(shape.embed_dim // (4 * lane_blocks))
        constants = {"TEAM": team, "LANE_BLOCKS": lane_blocks}
        outputs = _GEMV_LANES // team * 8
    return LinearPlan(plan(constants, -(-shape.vocab // outputs) * rows))


def _choose_linear(rows: int, wide: bool, half_subnormals: bool) -> LinearKernel:
    if rows >= (GEMM_FROM_ROWS if wide else GEMM_FROM_ROWS_OTHERWISE):
        return "gemm"
    if wide:
        return "gemv_wide_subnormal" if half_subnormals else "gemv_wide"
    return "gemv"


def _gemm_tile(rows: int, limits: Mapping[str, int]) -> tuple[int, int]:
    """The tallest tile that the rows fill by more than half and the device has room for."""

    def fits(tile_m: int, tile_n: int) -> bool:
        return (
            rows > tile_m // 2
            and 68 * (tile_m + tile_n) <= limits["max-compute-workgroup-storage-size"]
            and tile_m * tile_n // 64 <= limits["max-compute-invocations-per-workgroup"]
        )

    return next((tile for tile in _GEMM_TILES if fits(*tile)), _GEMM_TILES[-1])


def _team(pieces: int) -> int:
    """Lanes that share a row of ``pieces`` loads: a power of two up to 32, few of them idle."""
    widths: tuple[Literal[32, 16, 8, 4, 2, 1], ...] = (32, 16, 8, 4, 2, 1)
    turns = {width: -(-pieces // width) * width for width in widths}
    return next(width for width in widths if turns[width] * 3 <= pieces * 4 or width == 1)
