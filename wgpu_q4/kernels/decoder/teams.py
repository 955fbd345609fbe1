"""How the GEMV's invocations share the work: chosen by the matrix and the kind of device."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.kernels.decoder.shapes import Epilogue, Matrix

_MOST_INVOCATIONS = 256
"""What WebGPU promises."""


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


def choose_team(matrix: Matrix, epilogue: Epilogue, software: bool) -> Team:
    """Return the team for a product with ``matrix``.

    Args:
        matrix: the weight.
        epilogue: what the GEMV does with its product; a gated unit needs an even number of rows.
        software: True if the device runs on the processor.
    """
    chunks, rows = matrix.shape.embed_dim // 32, matrix.shape.vocab
    if software:
        return _team(8, 8, 128)
    lanes = _lanes_for(chunks)
    lane_rows = 8 if rows >= _MANY_ROWS or lanes == _MOST_INVOCATIONS else 2
    if matrix.type == "float16":  # a chunk of a row takes 16 registers
        lane_rows = min(lane_rows, 4)
    return _team(lanes, lane_rows, 128 if epilogue == "best" else 256)


_MANY_ROWS = 8192


def _lanes_for(chunks: int) -> int:
    """Return the lanes of a team: one for each chunk if a workgroup has as many, few idle."""
    if chunks <= 32:
        return max(8, 1 << (chunks - 1).bit_length())
    return min(_MOST_INVOCATIONS, chunks + -chunks % 16)


def _team(lanes: int, rows: int, invocations: int) -> Team:
    """Return a team of as many lanes; the invocations become a multiple of them."""
    return Team(lanes, rows, max(1, invocations // lanes) * lanes)
