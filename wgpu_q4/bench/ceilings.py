"""What the adapter reaches with the plainest kernels: copy, read, float32 arithmetic.

The three kernels run before and after everything else.  If the ratio of their times is far from 1,
the clock of the device has moved, and the figures between them are not comparable.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import DeviceTimer, Work
from wgpu_q4.kernels import Binding, Dispatch, Shader, fold, parse_bindings

_ROUNDS = 64
_ARITHMETIC_WORKGROUPS = 4096
_LARGEST = 512 << 20
_SOFTWARE_SHARE = 8
_SLICE = 32768


class Ceilings(NamedTuple):
    """The three results."""

    copy: Result
    read: Result
    arithmetic: Result

    @property
    def copy_bandwidth(self) -> float:
        """Return the bytes per second that a copy reads and writes: the limit of every job."""
        return self.copy.moved / self.copy.timing.median

    def over(self, before: Ceilings) -> dict[str, float]:
        """Return the time of each kernel, divided by its time ``before``."""
        pairs = zip(self, before, strict=True)
        return {now.op: now.timing.median / then.timing.median for now, then in pairs}


class _Plain(Shader):
    """A kernel of this folder."""

    @property
    def source(self) -> str:
        """Return its text."""
        path = Path(__file__).parent / "shaders" / f"{self.name}.wgsl"
        return path.read_text(encoding="utf-8")

    @cached_property
    def bindings(self) -> tuple[Binding, ...]:
        """Return what it binds."""
        return parse_bindings(self.source)


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
        buffers = {"source_values": source, "target_values": target, "found": target, "sums": sums}

        def work(name: str, workgroups: int, **constants: int) -> Work:
            grid = fold(workgroups, context.limits)
            return [context.pipelines.step(Dispatch(_Plain(name, ()), constants, grid), buffers)]

        slices = self._bytes // _SLICE
        self._copy, self._read = work("copy", 2 * slices), work("read", slices)
        self._arithmetic = work("arithmetic", self._workgroups, ROUNDS=_ROUNDS)

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
