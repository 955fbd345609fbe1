"""``x · Wᵀ``: the kernel that the table names, its constants, its grid, and what prepares x."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.linear.shaders import (
    INTEGER_BITS,
    LinearKernel,
    MatrixTile,
    Preparation,
    halve_x_shader,
    linear_kernels,
    linear_shader,
    matrix_shader,
    preparation_shader,
)
from wgpu_q4.kernels.linear.table import UNCHECKED, choose_linear, is_wide
from wgpu_q4.kernels.options import Accuracy, Layout
from wgpu_q4.kernels.traits import MATRIX_UNITS, HalfSupport, MatrixUnits

_PREPARED_PER_WORKGROUP = 64
_GEMV_LANES = 128
_TILE_N = 64
_MATRIX_TILES: tuple[tuple[int, int, MatrixTile], ...] = (
    (32, 2, "16x64"),
    (64, 2, "32x64"),
    (128, 4, "32x128"),
)
"""Rows of x of a workgroup, subgroups among which these are divided, what each of them computes."""

_TEAM_SHAPES: dict[int, dict[int, tuple[int, int]]] = {
    32: {1: (256, 16), 8: (256, 8)},
    16: {1: (256, 16), 8: (128, 8)},
    8: {1: (256, 16), 4: (256, 16), 8: (128, 8)},
}
"""Invocations of a workgroup and its widest team, by the bits of x and its rows at once (8 where
others are not named): what was fastest on an H200, by up to 15 %."""

_MATRIX_TILE_N = 128
_MATRIX_DEPTH = 64
_MATRIX_WORKGROUP_BYTES = 128 * 72 * 2 + 4 * 16 * 20 * 4 + 128 * 4
"""The staged weight, a matrix of sums for each of four subgroups, a factor for each row of x."""


@dataclass(frozen=True)
class LinearPlan:
    """What runs for ``x · Wᵀ``.

    Attributes:
        product: the matrix product.
        preparation: the dispatch that first puts x into the form that the product reads.
        padded_rows: rows of x in that form.
        x_bytes, x_scale_bytes: what the preparation writes.
    """

    product: Dispatch
    preparation: Dispatch | None = None
    padded_rows: int = 0
    x_bytes: int = 0
    x_scale_bytes: int = 0


def plan_linear(
    shape: MatrixShape,
    rows: int,
    layout: Layout,
    bias: bool,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    kernel: LinearKernel | None = None,
    accuracy: Accuracy = "exact",
    matrix_units: Collection[MatrixUnits] = (),
    software: bool = False,
) -> LinearPlan:
    """``x · Wᵀ`` for ``rows`` rows of x (at least one).

    Args:
        accuracy: the least that the kernel chosen must reach; a better one may be faster.
        kernel: a kernel by name instead of the choice of `TABLE`.
        matrix_units: what the device's matrix units do.
        software: whether the device runs on the processor.

    Raises:
        ValueError: ``kernel`` cannot do this shape, layout or device.
    """
    if limits["max-compute-workgroup-storage-size"] < _MATRIX_WORKGROUP_BYTES:
        matrix_units = ()
    if kernel is None:
        chosen = choose_linear(shape, rows, layout, half_support, accuracy, matrix_units, software)
        kernel = chosen.kernel
    if kernel not in linear_kernels(layout):
        others = [name for name in get_args(Layout) if kernel in linear_kernels(name)]
        raise ValueError(f"{kernel} needs the layout {' or '.join(map(repr, others))}")
    if kernel not in ("gemv", "gemm") and not is_wide(shape):
        raise ValueError(
            f"{kernel} needs K and G multiples of 32, not {shape.embed_dim} and {shape.group_size}"
        )
    if kernel == "gemv_wide_subnormal" and not half_support.subnormals:
        raise ValueError(f"{kernel} needs a device that keeps half-precision subnormals")
    if kernel == "gemm_matrix" and MATRIX_UNITS not in matrix_units:
        raise ValueError(
            f"{kernel} needs a device with matrix units for 16 × 16 halves, sums in float32, "
            f"subgroups of 32, and {_MATRIX_WORKGROUP_BYTES:,} bytes of workgroup memory. Dawn "
            f"offers them: install wgpudawn, set WGPU_Q4_IMPLEMENTATION=wgpudawn, and see what "
            f"'wgpu-q4 info' says"
        )
    job = _Job(kernel, shape, rows, layout, bias, limits, half_support)
    if kernel == "gemm_matrix":
        return _plan_matrix(job)
    if kernel.startswith("gemm"):
        return _plan_gemm(job)
    if kernel == "gemv":
        return _plan_gemv(job)
    if layout == "rows":
        return _plan_team(job)
    return _plan_blocks_integers(job)


@dataclass(frozen=True)
class _Job:
    kernel: LinearKernel
    shape: MatrixShape
    rows: int
    layout: Layout
    bias: bool
    limits: Mapping[str, int]
    half_support: HalfSupport

    def product(
        self,
        constants: dict[str, int],
        workgroups: int,
        x_bytes: int = 0,
        x_scale_bytes: int = 0,
        *,
        prepared: bool = False,
    ) -> Dispatch:
        """The matrix product, which reads so many bytes of x, by default those of x as it is."""
        shader = linear_shader(
            self.kernel,
            self.layout,
            self.shape.scales,
            self.bias,
            self.half_support.halves,
            prepared=prepared,
        )
        needs = None
        if self.layout.startswith(UNCHECKED.get(self.kernel, ())):
            needs = {
                "t_out": self.rows * self.shape.vocab * 4,
                "t_x": x_bytes or self.rows * self.shape.embed_dim * 4,
                "t_weight": _packed_bytes(self.shape, self.layout),
                "t_scales": _scale_bytes(self.shape),
                "sizes": 16,
                **({"t_bias": self.shape.vocab * 4} if self.bias else {}),
                **({"t_x_scales": x_scale_bytes} if x_scale_bytes else {}),
            }
        return Dispatch(
            shader, self.shape.constants | constants, fold(workgroups, self.limits), needs
        )

    def prepare(self, name: Preparation, constants: dict[str, int], invocations: int) -> Dispatch:
        return Dispatch(
            preparation_shader(name, self.layout),
            self.shape.constants | constants,
            fold(-(-invocations // _PREPARED_PER_WORKGROUP), self.limits),
        )


def _plan_gemm(job: _Job) -> LinearPlan:
    """Tiles of 64 outputs by the tallest that the rows of x fill by more than half."""
    tiles = (128, 64) if job.kernel == "gemm_int8" else (128, 64, 32)
    fitting = (tile for tile in tiles if job.rows > tile // 2 and _gemm_fits(job, tile))
    tile_m = next(fitting, tiles[-1])
    padded = -(-job.rows // tile_m) * tile_m
    embed_dim = job.shape.embed_dim
    if job.kernel == "gemm":
        prepare = job.prepare("transpose_x", {}, padded // 4 * (embed_dim // 4))
        x_bytes, scale_bytes = padded * embed_dim * 4, 0
    else:
        chunks = padded * (embed_dim // 32)
        prepare = job.prepare("quantize_columns", {"PLANES": 1}, chunks)
        x_bytes, scale_bytes = chunks * 32, chunks * 8
    tiles_in_all = padded // tile_m * -(-job.shape.vocab // _TILE_N)
    product = job.product({"TILE_M": tile_m}, tiles_in_all, x_bytes, scale_bytes)
    return LinearPlan(product, prepare, padded, x_bytes, scale_bytes)


def _gemm_fits(job: _Job, tile_m: int) -> bool:
    bytes_used = 64 * (tile_m + _TILE_N)
    if job.kernel == "gemm_int8":
        bytes_used = 40 * tile_m + 36 * _TILE_N
    return (
        bytes_used <= job.limits["max-compute-workgroup-storage-size"]
        and tile_m <= job.limits["max-compute-invocations-per-workgroup"]
        and tile_m <= job.limits["max-compute-workgroup-size-x"]
    )


def _plan_matrix(job: _Job) -> LinearPlan:
    """Tiles of 128 outputs by the lowest that holds all rows of x, at most 128."""
    tile_m, subgroups, tile = next(
        (chosen for chosen in _MATRIX_TILES if job.rows <= chosen[0]), _MATRIX_TILES[-1]
    )
    shape, halves = job.shape, job.half_support.halves
    padded = -(-job.rows // tile_m) * tile_m
    padded_dim = -(-shape.embed_dim // _MATRIX_DEPTH) * _MATRIX_DEPTH
    product = Dispatch(
        matrix_shader(tile, job.layout, shape.scales, job.bias, halves),
        shape.constants | {"SUBGROUPS_M": subgroups},
        fold(padded // tile_m * -(-shape.vocab // _MATRIX_TILE_N), job.limits),
    )
    halve = Dispatch(
        halve_x_shader(halves),
        shape.constants | {"PADDED_DIM": padded_dim},
        fold(padded, job.limits),
    )
    return LinearPlan(product, halve, padded, padded * padded_dim * 2, padded * 4)


def _plan_gemv(job: _Job) -> LinearPlan:
    shape = job.shape
    if job.layout.startswith("rows"):
        team = _team(shape.embed_dim // 8)
        constants = {"TEAM": team}
        outputs = _GEMV_LANES // team
    else:
        lane_blocks = 4 if shape.group_size % 16 == 0 else 2
        team = _team(shape.embed_dim // (4 * lane_blocks))
        constants = {"TEAM": team, "LANE_BLOCKS": lane_blocks}
        outputs = _GEMV_LANES // team * 8
    return LinearPlan(job.product(constants, -(-shape.vocab // outputs) * job.rows))


def _plan_team(job: _Job) -> LinearPlan:
    """Up to 8 rows of x for each unpacking of the weight."""
    chunks = job.shape.embed_dim // 32
    x_rows = next((few for few in (1, 2, 4) if job.rows <= few), 8)
    bits = INTEGER_BITS.get(job.kernel, 32)
    invocations, widest = _TEAM_SHAPES[bits].get(x_rows, _TEAM_SHAPES[bits][8])
    team = min(widest, max(4, _team(chunks)))
    constants = {"INVOCATIONS": invocations, "TEAM": team, "X_ROWS": x_rows}
    outputs = invocations // team * 4
    parts = -(-job.rows // x_rows)
    if bits == 32:
        constants["SLICE"] = min(64 // x_rows, -(-chunks // team) * team)
        return LinearPlan(job.product(constants, -(-job.shape.vocab // outputs) * parts))
    constants["PLANES"] = planes = bits // 8
    here = x_rows == 1 and _quantizes_here(job, planes, 16 * invocations)
    constants["TILES"] = tiles = _tiles(job.shape.vocab // outputs) if here else 1
    if here:
        constants |= {"CHUNKS": chunks, "VECTORS": 2 * planes * chunks}
    workgroups = -(-job.shape.vocab // (outputs * tiles)) * parts
    padded = None if here else parts * x_rows
    return _integers(job, constants, workgroups, planes, padded, 8)


def _plan_blocks_integers(job: _Job) -> LinearPlan:
    chunks = job.shape.embed_dim // 32
    team = min(16, max(2, _team(2 * chunks)))
    planes = INTEGER_BITS[job.kernel] // 8
    constants = {"INVOCATIONS": 256, "TEAM": team, "PLANES": planes}
    outputs = 256 // team * 8
    here = job.rows == 1 and _quantizes_here(job, planes, 32 * 256)
    constants["TILES"] = tiles = 2 if here and planes == 1 else 1
    if here:
        constants |= {"CHUNKS": chunks, "VECTORS": 2 * planes * chunks}
    workgroups = -(-job.shape.vocab // (outputs * tiles)) * job.rows
    padded = None if here else job.rows
    return _integers(job, constants, workgroups, planes, padded, 16)


def _quantizes_here(job: _Job, planes: int, other_bytes: int) -> bool:
    """Whether the integers of one row of x find room in a workgroup's memory."""
    x_bytes = (32 * planes + 16) * (job.shape.embed_dim // 32)
    return x_bytes + other_bytes <= job.limits["max-compute-workgroup-storage-size"]


def _tiles(workgroups: int) -> int:
    """Row tiles that a workgroup does one after another: four, where that leaves hundreds."""
    return next((tiles for tiles in (4, 2) if workgroups >= 400 * tiles), 1)


def _integers(
    job: _Job,
    constants: dict[str, int],
    workgroups: int,
    planes: int,
    padded: int | None,
    scale_bytes: int,
) -> LinearPlan:
    """The GEMVs on integers; ``padded`` rows are quantized before, none where None."""
    if padded is None:
        return LinearPlan(job.product(constants, workgroups))
    chunks = padded * (job.shape.embed_dim // 32)
    x_bytes, scale_bytes = chunks * 32 * planes, chunks * scale_bytes
    product = job.product(constants, workgroups, x_bytes, scale_bytes, prepared=True)
    prepare = job.prepare("quantize_x", {"PLANES": planes}, chunks)
    return LinearPlan(product, prepare, padded, x_bytes, scale_bytes)


def _packed_bytes(shape: MatrixShape, layout: Layout) -> int:
    rows = shape.vocab if layout.startswith("rows") else -(-shape.vocab // 8) * 8
    return rows * shape.embed_dim // 2


def _scale_bytes(shape: MatrixShape) -> int:
    nbytes = shape.vocab * (shape.embed_dim // shape.group_size)
    nbytes *= 2 if shape.scales == "float16" else 4
    return nbytes + -nbytes % 4


def _team(pieces: int) -> int:
    """Lanes that share a row of ``pieces`` loads: a power of two up to 32, few of them idle."""
    widths: tuple[Literal[32, 16, 8, 4, 2, 1], ...] = (32, 16, 8, 4, 2, 1)
    turns = {width: -(-pieces // width) * width for width in widths}
    return next(width for width in widths if turns[width] * 3 <= pieces * 4 or width == 1)
