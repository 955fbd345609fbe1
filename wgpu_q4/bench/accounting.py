"""The bytes that a job must read and write, and its floating-point operations.

Each byte counts once, however often a kernel reads it.  Bytes that only share a cache line with it
do not count.
"""

from __future__ import annotations

from wgpu_q4.kernels import Layout, MatrixShape, OutputDtype


def packed_bytes(shape: MatrixShape, layout: Layout) -> int:
    """Return the bytes of the 4-bit values on the device; blocks hold whole strips of 8 rows."""
    rows = shape.vocab if layout.startswith("rows") else -(-shape.vocab // 8) * 8
    return rows * (shape.embed_dim // 2)


def scales_bytes(shape: MatrixShape) -> int:
    """Return the bytes of the scales ``[V, K/G]``."""
    return shape.vocab * _row_of_scales(shape)


def embedding_bytes(shape: MatrixShape, ids: int, layout: Layout, output: OutputDtype) -> int:
    """Return the bytes of a lookup in no order: the ids, the rows, their scales, the result.

    A block holds a piece of 8 rows, so one row from blocks costs the bytes of 8.
    """
    rows_read = 1 if layout.startswith("rows") else 8
    weight = rows_read * (shape.embed_dim // 2) + _row_of_scales(shape)
    result = shape.embed_dim * (2 if output == "float16" else 4)
    return ids * (4 + weight + result)


def linear_bytes(shape: MatrixShape, rows: int, layout: Layout) -> int:
    """Return the bytes of a product: weight and scales once, float32 activations, logits."""
    weight = packed_bytes(shape, layout) + scales_bytes(shape)
    return weight + 4 * rows * (shape.embed_dim + shape.vocab)


def linear_flops(shape: MatrixShape, rows: int) -> int:
    """Return the operations of a product: two for each weight and row."""
    return 2 * rows * shape.vocab * shape.embed_dim


def pack_bytes(shape: MatrixShape, layout: Layout) -> int:
    """Return the bytes of reading rows and writing another layout."""
    return packed_bytes(shape, "rows") + packed_bytes(shape, layout)


def _row_of_scales(shape: MatrixShape) -> int:
    return shape.embed_dim // shape.group_size * (2 if shape.scales == "float16" else 4)
