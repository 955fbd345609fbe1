"""Commands as wgpu-native's C functions take them, and their encoding without a line of Python.

This module and `wgpu_q4.device.native` hold all that is private to wgpu-py.
"""

from __future__ import annotations

from collections import deque
from itertools import groupby, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from wgpu_q4.device.commands import Commands


class Columns(NamedTuple):
    """Neighbouring commands that have as many bind groups each, as columns of arguments.

    Attributes:
        pipelines: the handles of the pipelines.
        bind_groups: the handles of the bind groups 0, then those of the bind groups 1, ….
        x, y, z: the grids.
    """

    pipelines: tuple[Any, ...]
    bind_groups: tuple[tuple[Any, ...], ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    z: tuple[int, ...]


def columns_of(commands: Commands) -> list[Columns]:
    """Return the columns of ``commands``, which are made once."""
    if commands.native is None:
        commands.native = []
        for count, group in groupby(commands.in_order, lambda command: len(command.bind_groups)):
            same = list(group)
            handles = [
                tuple([command.bind_groups[number]._internal for command in same])
                for number in range(count)
            ]
            grids = zip(*[command.workgroups for command in same], strict=True)
            pipelines = tuple([command.pipeline._internal for command in same])
            commands.native.append(Columns(pipelines, tuple(handles), *grids))
    return commands.native  # type: ignore[no-any-return]


def encode_commands(commands: Commands, compute_pass: Any, lib: Any, nothing: Any) -> None:
    """Append ``commands`` to a compute pass.

    Python runs no line for a single dispatch: C walks the iterators, and `zip` takes one result
    from each in turn, which calls what sets the pipeline, what sets each bind group, and what
    dispatches.

    Args:
        commands: what to append.
        compute_pass: the handle of the pass.
        lib: wgpu-native's functions.
        nothing: NULL.
    """
    passes, zeros, none = repeat(compute_pass), repeat(0), repeat(nothing)
    for pipelines, bind_groups, x, y, z in columns_of(commands):
        binding = [
            map(lib.wgpuComputePassEncoderSetBindGroup, passes, repeat(i), column, zeros, none)
            for i, column in enumerate(bind_groups)
        ]
        setting = map(lib.wgpuComputePassEncoderSetPipeline, passes, pipelines)
        dispatching = map(lib.wgpuComputePassEncoderDispatchWorkgroups, passes, x, y, z)
        deque(zip(setting, *binding, dispatching, strict=False), maxlen=0)
