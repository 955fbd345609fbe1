"""Dispatches in their order, which are encoded as often as they are to run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from wgpu_q4.device.pipelines import Step

DISPATCHES_AT_A_TIME = 64
"""Dispatches after which a repeated sequence is submitted, so that the device works while the host
encodes the rest.  The first submissions are shorter, so that it starts soon."""

_DISPATCHES_AT_FIRST = 8

MOST_IN_FLIGHT = 64
"""Submissions that a device may have before it; the host waits for all of them before the next."""


class Command(NamedTuple):
    """One dispatch with any number of bind groups.

    Attributes:
        pipeline: the ``GPUComputePipeline``.
        bind_groups: the bind groups 0, 1, ….
        workgroups: the grid.
    """

    pipeline: Any
    bind_groups: tuple[Any, ...]
    workgroups: tuple[int, int, int]


class Commands:
    """Commands in their order.  They hold their pipelines and bind groups, and those the buffers.

    Attributes:
        in_order: the commands.
        native: what `wgpu_q4.device.native_commands` made of them; None if nothing yet.
    """

    def __init__(self, commands: Iterable[Command]) -> None:
        self.in_order = tuple(commands)
        self.native: Any = None

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Commands:
        """Return the commands that run ``steps``."""
        return cls(Command(step.pipeline, (step.bind_group,), step.workgroups) for step in steps)

    def __len__(self) -> int:
        return len(self.in_order)

    def record(self, compute_pass: Any) -> None:
        """Append the commands to a ``GPUComputePassEncoder`` through WebGPU's API."""
        for pipeline, bind_groups, workgroups in self.in_order:
            compute_pass.set_pipeline(pipeline)
            for number, bind_group in enumerate(bind_groups):
                compute_pass.set_bind_group(number, bind_group)
            compute_pass.dispatch_workgroups(*workgroups)

    def batches(self, times: int) -> Iterator[int]:
        """Yield how often the commands go into each submission; the sum is ``times``."""
        at_a_time, left = min(_DISPATCHES_AT_FIRST, DISPATCHES_AT_A_TIME), times
        while left > 0:
            repeats = min(left, max(1, at_a_time // max(1, len(self))))
            yield repeats
            left -= repeats
            at_a_time = min(2 * at_a_time, DISPATCHES_AT_A_TIME)
