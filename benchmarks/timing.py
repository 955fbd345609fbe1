"""GPU time of dispatches, from timestamps around each compute pass.

Work is repeated over rotating inputs, so that what is measured comes from memory and not from the
cache, after a warm-up that brings the clock up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median, quantiles
from typing import Any

import numpy as np

from wgpu_q4.device import Context

Dispatch = Callable[[Any], None]
"""Records one measured piece of work into a compute pass."""

_BATCH = 16
_MOST_UNTIMED = 2000


@dataclass(frozen=True)
class Timing:
    """Seconds on the GPU: median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        low, _, high = quantiles(seconds, n=4)
        return cls(median(seconds), low, high)


def measure(
    context: Context, work: Sequence[Dispatch], repeats: int = 32, busy: float = 0.1
) -> Timing:
    """Time ``work``, whose items are variants of one job on different inputs, in turn.

    Right before the timed passes, in the same submission, the same work runs untimed: a GPU that
    idled while the host compiled or encoded has lowered its clock.

    Args:
        context: a device with the feature ``timestamp-query``.
        work: recorded one to a pass, cycling.
        repeats: timed passes, rounded up to whole batches.
        busy: seconds of untimed work before each batch.
    """
    device = context.device
    stamps = device.create_query_set(type="timestamp", count=2 * _BATCH)
    resolved = context.create_buffer("timestamps", 16 * _BATCH, "QUERY_RESOLVE", "COPY_SRC")
    period = _timestamp_seconds(context)
    turns = cycle(work)

    def batch(untimed: int) -> np.ndarray[Any, Any]:
        encoder = device.create_command_encoder()
        if untimed:
            compute_pass = encoder.begin_compute_pass()
            for _ in range(untimed):
                next(turns)(compute_pass)
            compute_pass.end()
        for index in range(_BATCH):
            compute_pass = encoder.begin_compute_pass(
                timestamp_writes={
                    "query_set": stamps,
                    "beginning_of_pass_write_index": 2 * index,
                    "end_of_pass_write_index": 2 * index + 1,
                }
            )
            next(turns)(compute_pass)
            compute_pass.end()
        encoder.resolve_query_set(stamps, 0, 2 * _BATCH, resolved, 0)
        ticks = np.empty(2 * _BATCH, np.uint64)
        context.read(encoder, resolved, ticks)
        return (ticks[1::2] - ticks[0::2]).astype(np.float64) * period

    first = float(np.median(batch(1)))
    untimed = min(_MOST_UNTIMED, math.ceil(busy / max(first, 1e-6)))
    seconds = np.concatenate([batch(untimed) for _ in range(-(-repeats // _BATCH))])
    return Timing.of(seconds.tolist())


def wall(call: Callable[[], object], repeats: int = 20) -> Timing:
    """Wall-clock seconds of a call from Python, its result on the host."""
    call()
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return Timing.of(seconds)


def _timestamp_seconds(context: Context) -> float:
    """Seconds per timestamp unit.

    WebGPU resolves to nanoseconds.  wgpu-native leaves ticks of the queue, whose period it tells
    through a C function that wgpu-py does not wrap.
    """
    if context.implementation.__name__ != "wgpu":
        return 1e-9
    from wgpu.backends.wgpu_native import lib

    return float(lib.wgpuQueueGetTimestampPeriod(context.device.queue._internal)) * 1e-9
