"""The choices that several kernels have in common."""

from __future__ import annotations

from typing import Literal

from wgpu_q4.arrays import FloatDtype

Layout = Literal["rows", "rows_embedding", "blocks_buffer", "blocks_texture2d"]
"""How a device holds the packed weight: rows in either nibble order, or 8×4 blocks."""

ROWS: tuple[Layout, ...] = ("rows", "rows_embedding")
BLOCKS: tuple[Layout, ...] = ("blocks_buffer", "blocks_texture2d")

DEFAULT_LAYOUT: Layout = "rows"
"""The bytes of a file as they are: no packing step, and on an H200 the fastest for both ops."""

Storage = Literal["buffer", "texture3d"]
"""Where the ids and the result of an embedding are."""

OutputDtype = FloatDtype

Accuracy = Literal["exact", "fast", "int8"]
"""What a matrix product may round besides its sum: nothing, activations to 16 bits, or to 8."""

Nibbles = Literal["f16", "subnormal", "integer"]
"""How nibbles become floats: as half-precision subnormals, with or without half-precision
arithmetic, or by integer arithmetic.  Each is exact, and the first that a device can do is used."""

Halves = Literal["native", "integer"]
"""How half-precision numbers are converted: by the built-in functions, where a probe has shown
that they do it right, or by integer arithmetic."""
