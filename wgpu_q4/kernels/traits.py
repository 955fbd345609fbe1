"""Traits of a device that kernels depend on: its half-precision functions, its matrix units."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.kernels.options import Halves, Nibbles


@dataclass(frozen=True)
class HalfSupport:
    """What the built-in half-precision functions of a device do. A probe finds it out.

    Attributes:
        subnormals: ``unpack2x16float`` keeps subnormals.
        rounding: ``pack2x16float`` rounds to nearest even, overflows to infinity and keeps
            subnormals.
        arithmetic: the device has half-precision arithmetic, which keeps subnormals.
    """

    subnormals: bool = False
    rounding: bool = False
    arithmetic: bool = False

    @property
    def halves(self) -> Halves:
        """The conversions of half-precision numbers to use on the device."""
        return "native" if self.subnormals and self.rounding else "integer"

    @property
    def nibbles(self) -> Nibbles:
        """The unpacking of nibbles to use on the device."""
        if not self.subnormals:
            return "integer"
        return "f16" if self.arithmetic else "subnormal"


@dataclass(frozen=True)
class MatrixUnits:
    """A multiplication that a device's matrix units do: ``m × k`` by ``k × n``.

    Attributes:
        m, n, k: the shape.
        factors, sums: the types of the factors and of the sums, as ``"f16"``.
        least_subgroup, most_subgroup: the sizes of subgroup that can do it.
    """

    m: int
    n: int
    k: int
    factors: str
    sums: str
    least_subgroup: int
    most_subgroup: int


MATRIX_UNITS = MatrixUnits(16, 16, 16, "f16", "f32", 32, 32)
"""The only multiplication that a kernel is written for."""
