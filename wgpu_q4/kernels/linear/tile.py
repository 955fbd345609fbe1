"""Tiles of rows of x × 64 outputs: what the GEMMs without matrix units share."""

from __future__ import annotations

from collections.abc import Sequence

from wgpu_q4.kernels.linear.job import Job

TILE_N = 64
"""Outputs of a tile."""


def tile_rows(job: Job, heights: Sequence[int], row_bytes: int, output_bytes: int) -> int:
    """Return the rows of x of a tile: the most that x fills by more than half and that fit.

    Args:
        job: what is multiplied.
        heights: the heights that the kernel can have, from tallest to lowest; a tile has as many
            invocations.
        row_bytes, output_bytes: workgroup memory for each row of x and for each output.
    """
    limits = job.limits

    def fits(rows: int) -> bool:
        return (
            row_bytes * rows + output_bytes * TILE_N <= limits["max-compute-workgroup-storage-size"]
            and rows <= limits["max-compute-invocations-per-workgroup"]
            and rows <= limits["max-compute-workgroup-size-x"]
        )

    return next((rows for rows in heights if job.rows > rows // 2 and fits(rows)), heights[-1])


def tiles(job: Job, padded_rows: int, rows: int) -> int:
    """Return the tiles of a product with that many rows of x in each."""
    return padded_rows // rows * -(-job.shape.vocab // TILE_N)
