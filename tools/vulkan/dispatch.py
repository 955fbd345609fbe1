"""A dispatch: a kernel, the resources that it binds, its grid and its workgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tools.vulkan.resources import Resource

Size = tuple[int, int, int]


def upstream_local_size(grid: Size) -> Size:
    """Return the workgroup that ExecuTorch takes for a grid of invocations.

    The workgroup is 64 along the only dimension, 16×4 or 32×2 over two, and 8×4×2 or less over
    three; the larger numbers go to the longer dimensions.
    """
    order = sorted(range(3), key=lambda axis: -grid[axis])
    longest, middle, shortest = (grid[axis] for axis in order)
    if middle == 1:
        sizes = (64, 1, 1)
    elif shortest == 1:
        sizes = (32, 2, 1) if middle < 4 else (16, 4, 1)
    else:
        # At most 8 × 4 × 2, and no power of two beyond what a dimension can use.
        sizes = (
            min(8, _next_power_of_two(longest)),
            min(4, _next_power_of_two(middle)),
            min(2, _next_power_of_two(shortest)),
        )
    local = [1, 1, 1]
    for axis, size in zip(order, sizes, strict=True):
        local[axis] = size
    return local[0], local[1], local[2]


def _next_power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


@dataclass(frozen=True)
class Dispatch:
    """A kernel and everything that it is given.

    Attributes:
        spirv: the module; its entry point is ``main``.
        resources: the resources of set 0, in the order of the bindings.
        grid: the invocations in x, y, z.
        local_size: the workgroup; by default `upstream_local_size` of the grid.
        push_constants: the bytes of the push constants.
        constants: further specialization constants (from 3 on), 32-bit integers.
        results: the bindings to read back.
        timed_runs: how often to run the kernel again, timed by timestamps on the device.
    """

    spirv: bytes
    resources: Sequence[Resource]
    grid: Size
    local_size: Size | None = None
    push_constants: bytes = b""
    constants: Mapping[int, int] = field(default_factory=dict)
    results: Sequence[int] = (0,)
    timed_runs: int = 0


@dataclass(frozen=True)
class Outcome:
    """The contents of a dispatch's results, and the seconds of each timed run."""

    results: tuple[NDArray[Any], ...]
    seconds: tuple[float, ...] = ()
