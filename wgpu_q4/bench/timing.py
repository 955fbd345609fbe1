"""Seconds of dispatches on a device, and of calls from Python.

A warm-up brings the clock up.  Then work is repeated over rotating inputs, so that the inputs come
from memory and not from the cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median, quantiles
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device import Context
from wgpu_q4.device.native import timestamp_seconds
from wgpu_q4.device.pipelines import Step, record

Work = Sequence[Step]
"""The dispatches of one measured piece of work, recorded into one compute pass."""

Clock = Literal["timestamps", "dispatches", "calls", "events"]
"""How a time was taken: GPU timestamps around each pass; the wall clock over many dispatches in one
submission, divided by their number; the wall clock of one call; CUDA events around one call."""

_BATCH = 16
_MOST_UNTIMED = 2000
_BUSY = 0.1
_COARSEST = 1e-6
"""Timestamps of a coarser resolution (Dawn rounds them to 65.5 µs) are not used."""


@dataclass(frozen=True)
class Timing:
    """Seconds: the median of ``samples``, and the quartiles around it."""

    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Return the timing of at least one sample; the quartiles of one sample are the sample."""
        low, high = seconds[0], seconds[0]
        if len(seconds) > 1:
            low, _, high = quantiles(seconds, n=4, method="inclusive")
        return cls(median(seconds), low, high, len(seconds))


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        repeats: the most samples of a job.
        seconds: the time after which no more samples of a job are taken; one always is.
    """

    repeats: int = 32
    seconds: float = 0.5

    def enough(self, one: float) -> int:
        """Return how many samples to take, if each takes ``one`` second."""
        return max(1, min(self.repeats, math.ceil(self.seconds / max(one, 1e-9))))


class DeviceTimer:
    """Times dispatches on one device, by the best clock that it has.

    Attributes:
        clock: ``"timestamps"`` or ``"dispatches"``.
        why: the reason why the clock is not ``"timestamps"``, or an empty string.
    """

    def __init__(self, context: Context, effort: Effort) -> None:
        self.context = context
        self.effort = effort
        self.clock: Clock = "timestamps"
        self.why = ""
        self._tick = context.create_buffer("tick", 4, "COPY_SRC")
        if "timestamp-query" not in context.device.features:
            self.clock, self.why = "dispatches", "the device has no timestamp-query"
            return
        self._stamps = context.device.create_query_set(type="timestamp", count=2 * _BATCH)
        self._resolved = context.create_buffer(
            "timestamps", 16 * _BATCH, "QUERY_RESOLVE", "COPY_SRC"
        )
        self._period = _timestamp_seconds(context)
        resolution = self._resolution()
        if not 0 < resolution <= _COARSEST:
            self.clock = "dispatches"
            self.why = (
                f"the device rounds timestamps to {resolution * 1e6:.1f} µs"
                if resolution > 0
                else "the device's timestamps do not advance"
            )

    def measure(self, work: Sequence[Work]) -> Timing:
        """Return the seconds of one job; ``work`` holds the job on different inputs, used in turn.

        Right before the timed passes, in the same submission, the same work runs untimed: a GPU
        that idled while the host compiled or encoded has lowered its clock.
        """
        turns = cycle(work)
        self._submit([next(turns)])  # compiles, and brings the inputs to the device
        if self.clock == "timestamps":
            return Timing.of(self._by_timestamps(turns))
        return Timing.of(self._by_dispatches(turns))

    def _resolution(self) -> float:
        """Return the step of timestamps in seconds; 0 or less if they do not advance."""
        ticks: list[int] = []
        for turn in range(8):
            time.sleep(1e-3 * turn)
            ticks += self._ticks([[]], untimed=()).tolist()
        steps = np.diff(np.array(ticks, np.int64))
        if (steps < 0).any():
            return -1.0
        return float(np.gcd.reduce(steps)) * self._period

    def _by_timestamps(self, turns: cycle[Work]) -> list[float]:
        def batch(untimed: int, timed: int) -> list[float]:
            warm = [next(turns) for _ in range(untimed)]
            ticks = self._ticks([next(turns) for _ in range(timed)], warm)
            spans = (ticks[1::2] - ticks[0::2]).astype(np.float64) * self._period
            return [float(span) for span in spans]

        first = batch(0, 1)
        enough = self.effort.enough(first[0])
        if enough == 1:
            return first
        untimed = min(_MOST_UNTIMED, math.ceil(_BUSY / max(first[0], 1e-6)))
        if first[0] > _BUSY:
            untimed = 0  # so long a dispatch is its own warm-up
        seconds: list[float] = []
        while len(seconds) < enough:
            seconds += batch(untimed, min(_BATCH, enough - len(seconds)))
        return seconds

    def _by_dispatches(self, turns: cycle[Work]) -> list[float]:
        empty = median(self._submit([]) for _ in range(9))

        def sample(count: int) -> float:
            taken = self._submit([next(turns) for _ in range(count)])
            return max(taken - empty, 1e-9) / count

        one = sample(1)
        if self.effort.enough(one) == 1:
            return [one]
        count = 1
        for _ in range(3):  # a single dispatch may be too short to tell how many it takes
            count = max(1, min(_MOST_UNTIMED, math.ceil(_BUSY / one)))
            one = sample(count)
        samples = max(3, self.effort.enough(one * count))
        return [sample(count) for _ in range(min(samples, self.effort.repeats))]

    def _ticks(self, timed: Sequence[Work], untimed: Sequence[Work]) -> NDArray[np.uint64]:
        """Return two timestamps for each of up to 16 timed passes."""
        encoder = self.context.device.create_command_encoder()
        if untimed:
            _record(encoder, untimed)
        for index, steps in enumerate(timed):
            stamps = {
                "query_set": self._stamps,
                "beginning_of_pass_write_index": 2 * index,
                "end_of_pass_write_index": 2 * index + 1,
            }
            _record(encoder, [steps], timestamp_writes=stamps)
        encoder.resolve_query_set(self._stamps, 0, 2 * len(timed), self._resolved, 0)
        ticks = np.empty(2 * len(timed), np.uint64)
        self.context.read(encoder, self._resolved, ticks)
        return ticks

    def _submit(self, work: Sequence[Work]) -> float:
        """Return the seconds from submitting ``work`` in one pass until it is done."""
        encoder = self.context.device.create_command_encoder()
        if work:
            _record(encoder, work)
        start = time.perf_counter()
        self.context.read(encoder, self._tick, np.empty(1, np.uint32))
        return time.perf_counter() - start


def _record(encoder: Any, work: Sequence[Work], **options: Any) -> None:
    compute_pass = encoder.begin_compute_pass(**options)
    for steps in work:
        record(compute_pass, steps)
    compute_pass.end()


def time_calls(call: Callable[[], object], effort: Effort) -> Timing:
    """Return the wall-clock seconds of a call from Python, after two untimed calls."""

    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    call()
    first = once()
    enough = effort.enough(first)
    return Timing.of([first] if enough == 1 else [once() for _ in range(enough)])


def _timestamp_seconds(context: Context) -> float:
    """Return the seconds of a timestamp's unit: WebGPU has nanoseconds, wgpu-native its ticks."""
    if context.implementation.__name__ != "wgpu":
        return 1e-9
    return timestamp_seconds(context.device)
