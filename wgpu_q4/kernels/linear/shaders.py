"""The shaders of ``x · Wᵀ``."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.options import Halves, Layout
from wgpu_q4.kernels.pieces import halves_suffix, scales_pieces, weight_pieces
from wgpu_q4.kernels.wgsl import Shader

LinearKernel = Literal[
    "gemv",
    "gemv_wide",
    "gemv_wide_subnormal",
    "gemv_int16",
    "gemv_int8",
    "gemm",
    "gemm_int8",
    "gemm_matrix",
]
"""``gemv`` and ``gemm`` are there for every layout and shape, in float32.  The others need K and G
to be multiples of 32, the wide ones rows as well; ``gemv_wide_subnormal`` needs a device that keeps
half-precision subnormals.  ``int16`` and ``int8`` round x to integers of so many bits.
``gemm_matrix`` rounds x and the weight to half precision, for matrix units, which few devices have;
it reads rows and blocks in buffers."""

MatrixTile = Literal["32x128", "32x64", "16x64"]
"""What a subgroup of ``gemm_matrix`` computes: rows of x × outputs."""

INTEGER_BITS: dict[LinearKernel, int] = {"gemv_int16": 16, "gemv_int8": 8, "gemm_int8": 8}
"""The kernels that round x, and to how many bits."""

ROUNDING: frozenset[LinearKernel] = frozenset({*INTEGER_BITS, "gemm_matrix"})
"""The kernels that round x to anything less than float32."""

Preparation = Literal["transpose_x", "quantize_x", "quantize_columns"]
"""A pass that puts x into the form in which a kernel reads it."""


@cache
def linear_shader(
    kernel: LinearKernel,
    layout: Layout,
    scales: ScalesDtype,
    bias: bool,
    halves: Halves = "native",
    *,
    prepared: bool = False,
) -> Shader:
    """``x · Wᵀ + bias``.

    Args:
        prepared: for the GEMVs on integers, whether x comes from ``quantize_x``; without it every
            workgroup quantizes one row of x for itself.
    """
    is_rows = layout.startswith("rows")
    weight = weight_pieces(layout)
    bodies: tuple[str, ...]
    if kernel == "gemm":
        stage = f"linear/gemm/stage_{'rows' if is_rows else 'blocks'}"
        bodies = ("linear/common/exact_f32", "linear/common/gemm_tile", "linear/gemm/gemm", stage)
    elif kernel == "gemm_int8":
        stage = f"linear/gemm_integers/stage_{'rows' if is_rows else 'blocks'}"
        bodies = ("linear/common/gemm_tile", "linear/gemm_integers/gemm", stage)
    elif kernel in INTEGER_BITS:
        order = f"linear/common/integers_order_{'rows' if is_rows else 'blocks'}"
        x: tuple[str, ...] = (order, "linear/common/quantize", "linear/gemv_integers/integers_here")
        if prepared:
            x = (order, "linear/gemv_integers/integers_before")
        if is_rows:
            weight = ("weight/rows_wide",)
            bodies = ("linear/gemv/team", *x, "linear/gemv_integers/gemv_rows")
        else:
            bodies = (*x, "linear/gemv_integers/gemv_blocks")
    elif kernel == "gemv":
        bodies = ("linear/common/exact_f32", f"linear/gemv/gemv_{'rows' if is_rows else 'blocks'}")
    else:
        weight = ("weight/rows_wide",)
        nibbles = "subnormal" if kernel == "gemv_wide_subnormal" else "integer"
        bodies = (
            "linear/common/exact_f32",
            f"linear/gemv/nibbles_{nibbles}",
            "linear/gemv/team",
            "linear/gemv/gemv_wide",
        )
    pieces = (
        "shape/overrides",
        *weight,
        *scales_pieces(scales, halves),
        *(() if is_rows else ("scales/four_rows",)),
        "linear/common/bias_buffer" if bias else "linear/common/bias_none",
        *bodies,
    )
    name = f"linear_q4gsw_{kernel}_{layout}_{scales}_scales{'_bias' if bias else ''}"
    return Shader(f"{name}{'_prepared' if prepared else ''}{halves_suffix(pieces)}", pieces)


@cache
def preparation_shader(name: Preparation, layout: Layout) -> Shader:
    """The pass of that name; the order of integers follows the weight's layout."""
    if name == "transpose_x":
        return Shader(name, ("shape/overrides", "linear/gemm/transpose_x"))
    order = "rows" if layout.startswith("rows") else "blocks"
    pieces = (
        "shape/overrides",
        f"linear/common/integers_order_{order}",
        "linear/common/quantize",
        "linear/gemv_integers/quantize_x"
        if name == "quantize_x"
        else "linear/gemm_integers/quantize_columns",
    )
    return Shader(f"{name}_for_{order}", pieces)


@cache
def matrix_shader(
    tile: MatrixTile,
    layout: Layout,
    scales: ScalesDtype,
    bias: bool,
    halves: Halves = "native",
) -> Shader:
    """``x · Wᵀ + bias`` on matrix units, which takes x as `halve_x` makes it."""
    rows = layout == "rows"
    pieces = (
        "linear/matrix_units/extensions",
        "shape/overrides",
        "weight/rows_wide" if rows else f"weight/{layout}",
        *scales_pieces(scales, halves),
        "linear/common/bias_buffer" if bias else "linear/common/bias_none",
        f"linear/matrix_units/tile_{tile}",
        "linear/matrix_units/gemm",
        f"linear/matrix_units/stage_{'rows' if rows else 'blocks'}",
    )
    name = f"linear_q4gsw_gemm_matrix_{layout}_{scales}_scales{'_bias' if bias else ''}_{tile}"
    return Shader(f"{name}{halves_suffix(pieces)}", pieces)


@cache
def halve_x_shader(halves: Halves = "native") -> Shader:
    """x in half precision, in tiles, each row with its own power of two."""
    pieces = ("shape/overrides", f"half/{halves}", "linear/matrix_units/halve_x")
    return Shader(f"halve_x{halves_suffix(pieces)}", pieces)


def linear_kernels(layout: Layout) -> tuple[LinearKernel, ...]:
    """The kernels that there are for a weight held so."""
    every: tuple[LinearKernel, ...] = get_args(LinearKernel)
    if layout == "rows":
        return every
    if layout == "rows_embedding":
        return "gemv", "gemm", "gemm_int8"
    if layout == "blocks_buffer":
        return tuple(name for name in every if not name.startswith("gemv_wide"))
    return tuple(name for name in every if not name.startswith(("gemv_wide", "gemm_matrix")))
