"""What kernels need to know of a device beyond its limits: what a probe or its features say."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.kernels.options import Halves


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
class MatrixUnits:
    """A multiplication that a device's matrix units do: ``m × k`` by ``k × n``.

    Attributes:
        m, n, k: the shape.
        factors, sums: the types of what is multiplied and of what is added, as ``"f16"``.
        least_subgroup, most_subgroup: lanes of a subgroup that does it.
    """

    m: int
    n: int
    k: int
    factors: str
    sums: str
    least_subgroup: int
    most_subgroup: int


MATRIX_UNITS = MatrixUnits(16, 16, 16, "f16", "f32", 32, 32)
"""The only one that a kernel is written for."""
