"""The conversion of arrays between float16 and float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wgpu_q4.kernels.dispatch import Dispatch, fold
from wgpu_q4.kernels.options import Halves, OutputDtype
from wgpu_q4.kernels.pieces import halves_suffix
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_NUMBERS_PER_WORKGROUP = 512


@cache
def convert_shader(to: OutputDtype, halves: Halves = "native") -> Shader:
    """Return the kernel that converts an array of the other dtype to ``to``."""
    name = "halves_to_floats" if to == "float32" else "floats_to_halves"
    pieces = f"half/{halves}", f"convert/{name}"
    done = "exactly" if to == "float32" else "rounded to nearest even"
    return Shader(f"{name}{halves_suffix(pieces)}", pieces, f"an array as {to}, {done}")


def plan_convert(
    numbers: int, to: OutputDtype, limits: Mapping[str, int], half_support: HalfSupport
) -> Dispatch:
    """Return the dispatch that converts ``numbers`` numbers (at least one) to ``to``."""
    grid = fold(-(-numbers // _NUMBERS_PER_WORKGROUP), limits)
    return Dispatch(convert_shader(to, half_support.halves), {}, grid)
