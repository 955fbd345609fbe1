"""How the GEMV's invocations share the work: chosen by the matrix and the kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from wgpu_q4.kernels.decoder.shapes import Epilogue, Matrix


@dataclass(frozen=True)
class Team:
    """The constants of ``decoder/gemv/gemv.wgsl``.

    Attributes:
        lanes: invocations that share rows of the weight.
        rows: rows that they share.
        invocations: of a workgroup.
    """

    lanes: int
    rows: int
    invocations: int

    @property
    def outputs(self) -> int:
        """Rows of the weight for each workgroup."""
        return self.invocations // self.lanes * self.rows

    @property
    def constants(self) -> dict[str, int]:
        """The pipeline constants."""
        return {"INVOCATIONS": self.invocations, "TEAM": self.lanes, "LANE_ROWS": self.rows}

    @property
    def fold(self) -> int:
        """Sums of a team that are added up first: as many as there are left then, or about."""
        divisors = [n for n in range(self.rows, self.lanes + 1) if self.lanes % n == 0]
        return min(divisors, key=lambda n: n + self.lanes // n)


class Measured(NamedTuple):
    """The team that was fastest for matrices of some sizes.

    Attributes:
        most_chunks: chunks of 32 columns in a row, at most; None for any number.
        least_rows: rows of the matrix, at least.
        team: what was fastest; its lanes are for the most chunks, fewer take fewer.
        because: µs of the product in a chain of dependent dispatches on an H200.
    """

    most_chunks: int | None
    least_rows: int
    team: Team
    because: str


GPU = (
    Measured(32, 8192, Team(32, 8, 128), "49152 × 576: 12.3"),
    Measured(32, 2048, Team(32, 2, 128), "3072 × 576: 3.9"),
    Measured(32, 0, Team(32, 1, 128), "960 and 576 × 576: 3.1 and 3.0"),
    Measured(48, 0, Team(64, 1, 128), "576 × 1536: 3.6"),
    Measured(128, 8192, Team(64, 8, 128), "128256 and 16384 × 2048: 45.2 and 9.4"),
    Measured(128, 0, Team(64, 2, 256), "3072 and 2048 × 2048: 4.6 and 4.3"),
    Measured(None, 0, Team(256, 8, 256), "2048 × 8192: 6.5"),
)
"""The teams of a GPU; the first row that fits is taken.

They were found with a kernel that adds up by exchange between lanes where a row is long."""

PROCESSOR = Team(1, 8, 8)
"""The team of a device that runs on the processor.

Mesa's driver loads for one invocation after the other, and a load costs it about as much as the
products of 8 weights.  Rows that an invocation has for itself need no sums of a team."""

PROCESSOR_SHARED_X = Team(1, 4, 8)
"""The same where the invocations of a subgroup share x."""

SHARED_X = 8
"""Lanes of a subgroup, at least, that share the quads of a chunk of x."""

_MOST_WIDE_ROWS = 4
"""Rows that a lane has at once of a matrix in 8 or 16 bits: a chunk takes 10 or 16 registers."""


def choose_team(matrix: Matrix, software: bool, epilogue: Epilogue, subgroup: int = 0) -> Team:
    """Return the team for a product with ``matrix``.

    Args:
        matrix: the weight.
        software: True if the device runs on the processor.
        epilogue: what is done with the product.
        subgroup: lanes of the device's subgroups, if they are known and in order; else 0.
    """
    if software:
        return PROCESSOR_SHARED_X if subgroup >= SHARED_X else PROCESSOR
    chunks, rows = matrix.shape.embed_dim // 32, matrix.shape.vocab
    team = next(
        found.team
        for found in GPU
        if (found.most_chunks is None or chunks <= found.most_chunks) and rows >= found.least_rows
    )
    lanes, lane_rows = team.lanes, team.rows
    if chunks < 17:  # a power of two lanes, no more than twice the chunks, share fewer chunks
        lanes = max(8, 1 << (chunks - 1).bit_length())
    if matrix.type in ("float16", "affine8"):
        lane_rows = min(lane_rows, _MOST_WIDE_ROWS)
    if epilogue == "glu":  # a lane has as many rows of the gate as of up
        lane_rows = max(lane_rows, 2)
    return Team(lanes, lane_rows, team.invocations)
