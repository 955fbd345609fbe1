"""Calls on arrays that stay on the device, and recorded steps that feed each other.

    python -m benchmarks.resident --json FILE

measures, with random weights of Llama 3.2 1B's tied matrix (128256 × 2048, G = 32),

* a whole call of `embedding` on 16,384 ids, until the device is done: from numpy to numpy, and on
  device arrays: with a new result, with ``out=``, and replayed;
* 100 steps of embedding, product and argmax, whose id the next step looks up, until the device is
  done: as calls, as one recording of a step that is replayed 100 times, and as one recording of 100
  steps;
* the processor time of a dispatch: of such a replay, until it returns.

Each is measured through wgpu-native's C functions and through WebGPU's API.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import wgpu_q4
from tools.bench import surroundings
from wgpu_q4 import DeviceArray, Q4Weight, argmax, embedding, recording, to_device
from wgpu_q4.bench.timing import Timing
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.roundtrip import ENVIRONMENT_VARIABLE, WAYS

GROUP_SIZE = 32
_WARM_SECONDS = 0.3


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    vocab: int
    embed_dim: int
    ids: int
    steps: int
    repeats: int


@dataclass(frozen=True)
class Measured:
    """Microseconds of one thing: the median and the quartiles.

    Attributes:
        what: what was measured.
        way: ``"native"`` or ``"public"``.
        unit: what the time is of: a call, a step, or a dispatch.
    """

    what: str
    way: str
    unit: str
    median: float
    low: float
    high: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.way:7} {self.what:58} {self.median:10.1f} µs a {self.unit} "
            f"({self.low:.1f} to {self.high:.1f})"
        )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resident", description="Measure calls on device arrays."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--adapter", help="part of an adapter's name")
    for name, number in (
        ("vocab", 128256),
        ("embed-dim", 2048),
        ("ids", 16384),
        ("steps", 100),
        ("repeats", 50),
    ):
        parser.add_argument(f"--{name}", type=int, default=number, metavar="N")
    given = parser.parse_args(arguments)
    sizes = Sizes(given.vocab, given.embed_dim, given.ids, given.steps, given.repeats)
    weight = random_weight(sizes)
    found: list[Measured] = []
    for way in WAYS:
        context = context_of(way, given.adapter)
        if way == WAYS[0]:
            print(context.adapter_summary)
        for one in measure(context, weight, sizes):
            print(one, flush=True)
            found.append(one)
    if given.json is not None:
        document = {
            "command": "python -m benchmarks.resident " + " ".join(arguments or sys.argv[1:]),
            "adapter": surroundings.adapter(context),
            "host": surroundings.host(),
            "versions": surroundings.versions(),
            "sizes": asdict(sizes),
            "results": [asdict(one) for one in found],
        }
        given.json.write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0


def random_weight(sizes: Sizes) -> Q4Weight:
    """Return a weight of random nibbles, with scales of about one."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (sizes.vocab, sizes.embed_dim // 2), np.uint8)
    scales = rng.uniform(0.5, 1.5, (sizes.vocab, sizes.embed_dim // GROUP_SIZE))
    return Q4Weight(packed, scales.astype(np.float16))


def context_of(way: str, adapter: str | None) -> Context:
    """Return the context of a new device that is used in one way."""
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = way
    try:
        context = context_for(wgpu_q4.request_device(adapter, "wgpu"))
        _ = context.round_trip
    finally:
        if before is None:
            del os.environ[ENVIRONMENT_VARIABLE]
        else:
            os.environ[ENVIRONMENT_VARIABLE] = before
    return context


def measure(context: Context, weight: Q4Weight, sizes: Sizes) -> Iterator[Measured]:
    """Yield all figures of one way to use a device."""
    timer = Timer(context, sizes.repeats)
    yield from lookups(timer, weight, sizes)
    yield from decoding(timer, weight, sizes)


class Timer:
    """Times functions on a device that is kept busy before."""

    def __init__(self, context: Context, repeats: int) -> None:
        self.context, self._repeats = context, repeats

    def until_done(self, what: str, run: Callable[[], object], unit: str, units: int) -> Measured:
        """Return the time until the device has done all that ``run`` asks of it."""

        def whole() -> float:
            start = time.perf_counter()
            run()
            self.context.round_trip.wait()
            return time.perf_counter() - start

        return self._measured(what, whole, unit, units)

    def until_return(self, what: str, run: Callable[[], object], unit: str, units: int) -> Measured:
        """Return the time until ``run`` returns, with a device that is idle before."""

        def host() -> float:
            self.context.round_trip.wait()
            start = time.perf_counter()
            run()
            return time.perf_counter() - start

        return self._measured(what, host, unit, units)

    def _measured(self, what: str, once: Callable[[], float], unit: str, units: int) -> Measured:
        end = time.perf_counter() + _WARM_SECONDS
        once()
        while time.perf_counter() < end:
            once()
        timing = Timing.of([once() for _ in range(self._repeats)])
        median, low, high = (1e6 / units * one for one in (timing.median, timing.low, timing.high))
        way = self.context.round_trip.name
        return Measured(what, way, unit, median, low, high, timing.samples)


def lookups(timer: Timer, weight: Q4Weight, sizes: Sizes) -> Iterator[Measured]:
    """Yield the times of looking ids up."""
    device = timer.context.device
    host = np.random.default_rng(1).integers(0, sizes.vocab, sizes.ids).astype(np.int32)
    ids, name = to_device(host, device), f"embedding of {sizes.ids:,} ids"
    for dtype in ("float32", "float16"):
        out = DeviceArray.empty((sizes.ids, sizes.embed_dim), dtype, device)
        with recording(device) as once:
            embedding(ids, weight, dtype, out=out)
        calls: dict[str, Callable[[], object]] = {
            "numpy to numpy": lambda dtype=dtype: embedding(host, weight, dtype, device),  # type: ignore[misc]
            "to a new device array": lambda dtype=dtype: embedding(ids, weight, dtype),  # type: ignore[misc]
            "out=": lambda dtype=dtype, out=out: embedding(ids, weight, dtype, out=out),  # type: ignore[misc]
            "replayed": once.replay,
        }
        for how, call in calls.items():
            yield timer.until_done(f"{name}, {dtype}, {how}", call, "call", 1)


def decoding(timer: Timer, weight: Q4Weight, sizes: Sizes) -> Iterator[Measured]:
    """Yield the times of steps that feed each other."""
    device, steps = timer.context.device, sizes.steps
    ids = to_device([7], device)
    rows = DeviceArray.empty((1, sizes.embed_dim), device=device)

    def step() -> None:
        embedding(ids, weight, out=rows)
        argmax(rows, weight, out=ids)

    def many_calls() -> None:
        for _ in range(steps):
            step()

    with recording(device, submit=False) as one:
        step()
    with recording(device, submit=False) as many:
        many_calls()
    name, dispatches = "embedding + linear + argmax", len(many)
    yield timer.until_done(f"{name}, {steps} × two calls", many_calls, "step", steps)
    yield timer.until_done(
        f"{name}, a step replayed {steps} ×", lambda: one.replay(steps), "step", steps
    )
    yield timer.until_done(f"{name}, {steps} steps recorded", many.replay, "step", steps)
    yield timer.until_return(
        f"processor time, a step replayed {steps} ×",
        lambda: one.replay(steps),
        "dispatch",
        dispatches,
    )
    yield timer.until_return(
        f"processor time, {steps} steps recorded", many.replay, "dispatch", dispatches
    )


if __name__ == "__main__":
    sys.exit(main())
