"""The table: which kernel multiplies, and the measurement that says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from wgpu_q4.kernels.dispatch import MatrixShape
from wgpu_q4.kernels.linear.shaders import LinearKernel, linear_kernels
from wgpu_q4.kernels.options import Accuracy, Layout
from wgpu_q4.kernels.traits import MATRIX_UNITS, HalfSupport, MatrixUnits


@dataclass(frozen=True)
class Choice:
    """A row of the table: when a kernel for ``x · Wᵀ`` is chosen, and the measurement behind it.

    Attributes:
        kernel: what is chosen.
        accuracies: those that it is good enough for.
        layouts: the start of the layouts' names.
        first_rows, last_rows: rows of x.
        wide: whether K and G must be multiples of 32.
        subnormals: whether the device must keep half-precision subnormals.
        matrix_units: whether it must have `MATRIX_UNITS`.
        software: whether the device must run on the processor; None for either.
        because: the measurement: an H200, V = 128256, K = 2048, G = 32, weights not in cache.
    """

    kernel: LinearKernel
    accuracies: tuple[Accuracy, ...]
    layouts: tuple[str, ...]
    first_rows: int
    last_rows: int | None
    wide: bool
    because: str
    subnormals: bool = False
    matrix_units: bool = False
    software: bool | None = None


LAST_GEMV_ROWS = 9
"""Rows of x up to which a GEMV is taken where none unpacks a weight for several of them."""

UNCHECKED: dict[LinearKernel, tuple[str, ...]] = {
    "gemv": ("blocks_buffer",),
    "gemv_wide": ("rows",),
    "gemv_wide_subnormal": ("rows",),
    "gemv_int16": ("rows", "blocks_buffer"),
    "gemv_int8": ("rows", "blocks_buffer"),
    "gemm": ("rows",),
    "gemm_int8": ("rows", "blocks_buffer"),
}
"""Kernels, and layouts of the weight, that gain by running unchecked: see `Dispatch.needs`."""

_UNITS_ROWS = "0.17 ms for up to 32 rows, 0.32 for 128, 1.22 for 512 (220 TFLOP/s), on Dawn"
_UNITS_BLOCKS = "0.18 ms for up to 32 rows, 0.32 for 128, 1.20 for 512 (224 TFLOP/s), on Dawn"
_INT8_ROWS = "44 µs for 1 row, 87 for 8, 0.41 ms for 48; gemm_int8 takes 0.50 there"
_INT8_MANY = "0.50 ms for up to 64 rows, 0.92 for 128 (73 TFLOP/s), 3.38 for 512"
_INT16_ROWS = "45 µs for 1 row, 145 for 8, 0.83 ms for 48; gemm takes 0.93 there"
_WIDE = "55 µs for 1 row, 169 for 8, 0.86 ms for 48; gemm takes 0.93 there"
_SOFTWARE = "Mesa on two cores, 49152 × 576: 15 to 24 ms for 1 row; gemv_int16 and _subnormal 27"
_SOFTWARE_BLOCKS = "Mesa on two cores, 49152 × 576: 20 to 26 ms for 1 row; gemv_int16 takes 35"
_TILES = "0.58 ms for up to 32 rows, 0.93 for 64, 1.63 for 128 (41 TFLOP/s), 6.09 for 512"
_EVERY: tuple[Accuracy, ...] = ("exact", "fast", "int8")
_ALL = ("rows", "blocks")

_ROUNDED: tuple[Accuracy, ...] = ("fast", "int8")

TABLE: tuple[Choice, ...] = (
    Choice("gemm_matrix", _ROUNDED, ("rows",), 9, None, True, _UNITS_ROWS, matrix_units=True),
    Choice("gemm_matrix", _ROUNDED, ("blocks",), 5, None, True, _UNITS_BLOCKS, matrix_units=True),
    Choice(
        *("gemv", _EVERY, ("blocks",), 1, LAST_GEMV_ROWS, False, _SOFTWARE_BLOCKS), software=True
    ),
    Choice("gemv_int8", ("int8",), ("rows",), 1, 48, True, _INT8_ROWS),
    Choice("gemv_int8", ("int8",), ("blocks",), 1, LAST_GEMV_ROWS, True, "46 µs for 1 row"),
    Choice("gemm_int8", ("int8",), _ALL, LAST_GEMV_ROWS + 1, None, True, _INT8_MANY),
    Choice("gemv_wide", ("exact", "fast"), ("rows",), 1, 48, True, _SOFTWARE, software=True),
    Choice("gemv_int16", ("fast",), ("rows",), 1, 48, True, _INT16_ROWS),
    Choice("gemv_int16", ("fast",), ("blocks",), 1, LAST_GEMV_ROWS, True, "52 µs for 1 row"),
    Choice("gemv_wide_subnormal", _EVERY, ("rows",), 1, 48, True, _WIDE, subnormals=True),
    Choice("gemv_wide", _EVERY, ("rows",), 1, 48, True, "64 µs for 1 row, no device refuses it"),
    Choice("gemv", _EVERY, _ALL, 1, LAST_GEMV_ROWS, False, "71 µs for 1 row, 56 for each more"),
    Choice("gemm", _EVERY, _ALL, LAST_GEMV_ROWS + 1, None, False, _TILES),
)
"""The first row that fits is taken."""


def choose_linear(
    shape: MatrixShape,
    rows: int,
    layout: Layout,
    half_support: HalfSupport,
    accuracy: Accuracy = "exact",
    matrix_units: Collection[MatrixUnits] = (),
    software: bool = False,
) -> Choice:
    """The row of `TABLE` for ``rows`` rows of x, on a processor if ``software``."""

    def fits(choice: Choice) -> bool:
        return (
            accuracy in choice.accuracies
            and choice.kernel in linear_kernels(layout)
            and layout.startswith(choice.layouts)
            and choice.first_rows <= rows
            and (choice.last_rows is None or rows <= choice.last_rows)
            and (is_wide(shape) or not choice.wide)
            and (half_support.subnormals or not choice.subnormals)
            and (MATRIX_UNITS in matrix_units or not choice.matrix_units)
            and choice.software in (None, software)
        )

    return next(choice for choice in TABLE if fits(choice))


def is_wide(shape: MatrixShape) -> bool:
    """Whether rows are whole chunks of 32 columns, each of one scale."""
    return shape.embed_dim % 32 == 0 and shape.group_size % 32 == 0
