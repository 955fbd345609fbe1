"""The stages of a soak: what each does, what it counts, and what it promises."""

from __future__ import annotations

import gc
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools.soak.count import Held, held
from tools.soak.work import OPS, Case, new_case
from wgpu_q4 import DeviceError, request_device
from wgpu_q4.device import context_for

Report = Callable[[int], None]
"""Called with how much more of a stage is done."""

MEMORY_FLAT = 16 << 20
"""Bytes by which the memory of one thread's calls may grow after the warm-up.

The allocators of Python, of the driver and of its compiler keep what they once had: some MiB move
from run to run.  What leaks grows with the calls; one KiB a call would be 50 MiB in 50,000.
"""

MEMORY_OF_THREADS = 320 << 20
"""The same where threads make devices side by side.

Mesa's driver for the processor takes 40 MiB for each, and which thread's heap keeps them depends on
chance: memory rises by 50 to 250 MiB and then stays.  A minute makes 1,000 devices: a leak of one
in a hundred would bring 400 MiB.
"""

OBJECTS_FLAT = 1_000
"""Python objects by which a stage may grow: caches of Python's own still fill up."""


@dataclass
class Outcome:
    """The outcome of one stage.

    Attributes:
        name: of the stage.
        counts: how often what was done.
        seconds: how long it took.
        before, after: what the process held after the warm-up, and at the end.
        faults: wrong results, foreign errors, growth; empty if the stage passed.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    before: Held | None = None
    after: Held | None = None
    faults: list[str] = field(default_factory=list)

    def close(self, memory: int = MEMORY_FLAT) -> None:
        """Count what is held now, and note growth; that of memory from ``memory`` bytes on."""
        self.after = held()
        assert self.before is not None
        grown = self.after.memory - self.before.memory
        if grown > memory:
            self.faults.append(f"{self.name}: memory grew by {grown:,} bytes")
        objects = self.after.objects - self.before.objects
        if objects > OBJECTS_FLAT:
            self.faults.append(f"{self.name}: {objects:,} objects more than before")
        if self.after.files > self.before.files:
            self.faults.append(f"{self.name}: {self.after.files - self.before.files} open files")
        if self.after.threads > self.before.threads:
            self.faults.append(f"{self.name}: a thread is left")


class _Workers:
    """Threads that work until the time is over, or until the first fault."""

    def __init__(self, outcome: Outcome, seconds: float) -> None:
        self.outcome = outcome
        self.lock = threading.Lock()
        self.until = time.monotonic() + seconds
        self.start_of: list[threading.Thread] = []

    def add(self, turn: Callable[[np.random.Generator], str], seed: int) -> None:
        """Let a new thread take one ``turn`` after the other; each returns what it did."""

        def loop() -> None:
            rng = np.random.default_rng(seed)
            while time.monotonic() < self.until and not self.outcome.faults:
                try:
                    done = turn(rng)
                except BaseException:
                    with self.lock:
                        self.outcome.faults.append(traceback.format_exc())
                    return
                with self.lock:
                    self.outcome.counts[done] += 1

        self.start_of.append(threading.Thread(target=loop))

    def run(self, report: Report) -> None:
        """Start all threads and wait for them."""
        for thread in self.start_of:
            thread.start()
        while any(thread.is_alive() for thread in self.start_of):
            time.sleep(0.2)
            report(0)
        for thread in self.start_of:
            thread.join()


def _call_any(case: Case, rng: np.random.Generator, device: Any) -> str:
    op = OPS[rng.integers(len(OPS))]
    case.calls[op](device)
    return op


def threads(seconds: float, report: Report, seed: int = 1) -> Outcome:
    """Eight threads: three share a device and its weights, two make weights and drop them, two make
    devices and drop or destroy them, and one uses a device that another thread destroys."""
    outcome = Outcome("threads")
    shared = [new_case(np.random.default_rng([seed, number])) for number in range(5)]
    victim: list[Any] = [request_device()]

    def on_shared(rng: np.random.Generator) -> str:
        return _call_any(shared[rng.integers(len(shared))], rng, None)

    def on_new_weight(rng: np.random.Generator) -> str:
        case = new_case(rng)
        for _ in range(4):
            _call_any(case, rng, None)
        return "weights"

    def on_new_device(rng: np.random.Generator) -> str:
        device = request_device()
        for _ in range(3):
            _call_any(shared[rng.integers(len(shared))], rng, device)
        if rng.integers(2):
            device.destroy()
        return "devices"

    def on_victim(rng: np.random.Generator) -> str:
        device = victim[0]
        try:
            return _call_any(shared[rng.integers(len(shared))], rng, device)
        except DeviceError as error:
            if "is lost" not in str(error):
                raise
            return "calls refused on a lost device"

    def destroy(rng: np.random.Generator) -> str:
        time.sleep(float(rng.uniform(0, 0.2)))
        old, victim[0] = victim[0], request_device()
        old.destroy()
        return "devices destroyed in use"

    roles = [on_shared] * 3 + [on_new_weight] * 2 + [on_new_device, on_victim, destroy]

    def run_for(limit: float) -> None:
        workers = _Workers(outcome, limit)
        for number, role in enumerate(roles):
            workers.add(role, seed * 100 + number)
        workers.run(report)
        gc.collect()

    run_for(min(20.0, seconds / 2))
    outcome.before = held()
    outcome.counts.clear()
    started = time.monotonic()
    run_for(seconds)
    outcome.seconds = time.monotonic() - started
    outcome.close(MEMORY_OF_THREADS)
    return outcome


def calls(number: int, report: Report, seed: int = 2) -> Outcome:
    """The same ``number`` of calls of each op; nothing is made on the device after the warm-up."""
    outcome = Outcome("calls")
    case = new_case(np.random.default_rng(seed))
    context = context_for()

    def made() -> tuple[int, int, int]:
        pipelines = context.pipelines
        return (
            context.buffers_created,
            pipelines.bind_groups_created,
            pipelines.pipelines_created,
        )

    def run_all(times: int) -> None:
        for op in OPS:
            for call in range(times):
                case.calls[op](None)
                if call % 100 == 99:
                    report(100)

    run_all(max(20, number // 50))
    outcome.before, before = held(), made()
    started = time.monotonic()
    try:
        run_all(number)
    except Exception:
        outcome.faults.append(traceback.format_exc())
    outcome.seconds = time.monotonic() - started
    outcome.counts.update(dict.fromkeys(OPS, number))
    outcome.close()
    if made() != before:
        outcome.faults.append("calls: buffers, bind groups or pipelines were made after warm-up")
    return outcome


def devices(number: int, report: Report, seed: int = 3) -> Outcome:
    """Devices, one after the other: made, used with every op, and dropped or destroyed."""
    outcome = Outcome("devices")
    case = new_case(np.random.default_rng(seed))

    def use(count: int) -> None:
        for turn in range(count):
            device = request_device()
            for call in case.calls.values():
                call(device)
            if turn % 2:
                device.destroy()
            del device
            gc.collect()  # a device and its context refer to each other
            report(1)

    use(max(3, number // 10))
    outcome.before = held()
    started = time.monotonic()
    try:
        use(number)
    except Exception:
        outcome.faults.append(traceback.format_exc())
    outcome.seconds = time.monotonic() - started
    outcome.counts["devices"] = number
    outcome.close()
    return outcome
