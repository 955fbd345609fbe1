"""The pieces that several kernels share: those that read the weight and its scales."""

from __future__ import annotations

from typing import get_args

from wgpu_q4.errors import KernelError
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.options import Halves, Layout, Nibbles


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `KernelError` unless ``value`` is one of ``known``."""
    if value not in known:
        raise KernelError(f"the {what} must be {' or '.join(map(repr, known))}, not {value!r}")


def weight_pieces(layout: Layout) -> tuple[str, ...]:
    """Return the pieces that read a weight in ``layout``.

    Raises:
        KernelError: there is no such layout.
    """
    check_choice("layout", layout, get_args(Layout))
    nibbles = ("weight/nibbles_embedding",) if layout == "rows_embedding" else ()
    return (*nibbles, f"weight/{layout}")


def scales_pieces(dtype: ScalesDtype, halves: Halves) -> tuple[str, ...]:
    """Return the pieces that read scales of ``dtype``.

    Raises:
        KernelError: scales have no such dtype, or halves are not converted so.
    """
    check_choice("dtype of the scales", dtype, get_args(ScalesDtype))
    check_choice("conversion of halves", halves, get_args(Halves))
    return (f"half/{halves}", "scales/f16") if dtype == "float16" else ("scales/f32",)


def nibbles_pieces(nibbles: Nibbles) -> tuple[str, ...]:
    """Return the pieces that unpack words of a weight in rows."""
    needed = ("linear/common/exact_f32",) if nibbles == "integer" else ()
    return (*needed, f"linear/gemv/nibbles_{nibbles}")


def with_directives(pieces: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``pieces``, behind the one with the directive that they need, if they need one."""
    uses_f16 = "linear/gemv/nibbles_f16" in pieces
    return (*(("half/enable_f16",) if uses_f16 else ()), *pieces)


def halves_suffix(pieces: tuple[str, ...]) -> str:
    """Return what a shader's name says of how its pieces convert halves."""
    return "_integer_halves" if "half/integer" in pieces else ""


def ways_to_convert(used: bool) -> tuple[Halves, ...]:
    """Return the ways to convert halves for a shader that has some; else one, which is not used."""
    ways: tuple[Halves, ...] = get_args(Halves)
    return ways if used else ways[:1]
