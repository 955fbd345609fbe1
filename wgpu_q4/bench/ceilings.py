"""What the adapter reaches with the plainest kernels: copy, read, float32 arithmetic.

The three kernels run before and after everything else.  If the ratio of their times is far from 1,
the clock of the device has moved, and the figures between them are not comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import DeviceTimer, Work
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels import fold

_ROUNDS = 64
_ARITHMETIC_WORKGROUPS = 4096
_LARGEST = 512 << 20
_SOFTWARE_SHARE = 8
_SLICE = 32768


@dataclass(frozen=True)
class Ceilings:
    """The three results."""

    copy: Result
    read: Result
    arithmetic: Result

    @property
    def copy_bandwidth(self) -> float:
        """Return the bytes per second that a copy reads and writes: the limit of every job."""
        return self.copy.moved / self.copy.timing.median

    @property
    def read_bandwidth(self) -> float:
        """Return the bytes per second that a kernel reads."""
        return self.read.moved / self.read.timing.median

    @property
    def arithmetic_rate(self) -> float:
        """Return float32 operations per second; a multiply-add counts as two."""
        return self.arithmetic.flops / self.arithmetic.timing.median

    def over(self, before: Ceilings) -> dict[str, float]:
        """Return the time of each kernel, divided by its time ``before``."""
        pairs = {
            "copy": (self.copy, before.copy),
            "read": (self.read, before.read),
            "arithmetic": (self.arithmetic, before.arithmetic),
        }
        return {name: now.timing.median / then.timing.median for name, (now, then) in pairs.items()}


class CeilingJobs:
    """The three jobs on one device; their buffers are kept for the second time.

    Args:
        timer: the timer of the device.
        software: True if the device runs on the processor; an eighth of the work is then enough.
    """

    def __init__(self, timer: DeviceTimer, software: bool = False) -> None:
        context = timer.context
        self._timer = timer
        share = _SOFTWARE_SHARE if software else 1
        self._bytes = min(_LARGEST // share, context.largest_binding) // _SLICE * _SLICE
        self._workgroups = _ARITHMETIC_WORKGROUPS // share
        source = context.create_buffer("source", self._bytes, "STORAGE")
        target = context.create_buffer("target", self._bytes, "STORAGE")
        sums = context.create_buffer("sums", self._workgroups * 256 * 4, "STORAGE")
        slices = self._bytes // _SLICE
        self._copy = self._work("copy", {0: target, 1: source}, 2 * slices)
        self._read = self._work("read", {0: target, 1: source}, slices)
        self._arithmetic = self._work("arithmetic", {0: sums}, self._workgroups, ROUNDS=_ROUNDS)

    def measure(self) -> Ceilings:
        """Measure the three kernels."""
        clock, nbytes = self._timer.clock, self._bytes
        copied = self._timer.measure([self._copy])
        read = self._timer.measure([self._read])
        computed = self._timer.measure([self._arithmetic])
        flops = self._workgroups * 256 * _ROUNDS * 128
        return Ceilings(
            Result("wgpu_q4", "copy", nbytes, copied, clock, moved=2 * nbytes),
            Result("wgpu_q4", "read", nbytes, read, clock, moved=nbytes),
            Result("wgpu_q4", "arithmetic", flops, computed, clock, flops=flops),
        )

    def _work(
        self, name: str, buffers: Mapping[int, Any], workgroups: int, **constants: int
    ) -> Work:
        context = self._timer.context
        device = context.device
        source = (Path(__file__).parent / "shaders" / f"{name}.wgsl").read_text(encoding="utf-8")
        pipeline = device.create_compute_pipeline(
            layout="auto",
            compute={
                "module": device.create_shader_module(label=name, code=source),
                "entry_point": "main",
                "constants": constants,
            },
        )
        group = device.create_bind_group(
            layout=pipeline.get_bind_group_layout(0),
            entries=[
                {
                    "binding": number,
                    "resource": {"buffer": buffer, "offset": 0, "size": buffer.size},
                }
                for number, buffer in buffers.items()
            ],
        )
        return [Step(pipeline, group, fold(workgroups, context.limits))]
