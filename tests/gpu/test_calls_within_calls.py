"""A call in the middle of another one of the same thread: right results, or a `DeviceError`."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import wgpu_q4
from tests.cases import ODD, anew, random_weight, random_x
from tests.devices import HANGS
from tests.ways import IDS, check
from wgpu_q4 import DeviceError, embedding, linear
from wgpu_q4.device import context_for

OTHER_IDS = np.arange(11)


def call_at(step: int, outer: Callable[[], Any], inner: Callable[[], None]) -> tuple[Any, bool]:
    """Call ``outer``, and ``inner`` when the package is about to run its ``step``-th line.

    Returns:
        What ``outer`` returned, and False if it ended before that line.
    """
    package = str(Path(wgpu_q4.__file__).parent)
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            seen += 1
            if seen == step:
                inner()
        return trace

    sys.settrace(trace)
    try:
        return outer(), seen >= step
    finally:
        sys.settrace(None)


def check_refusal(error: DeviceError) -> None:
    assert "already in a call" in str(error)


def test_a_call_at_every_line_of_a_call(each_way: Any) -> None:
    weight, x = random_weight(ODD, "float16"), random_x(3, ODD.embed_dim)
    logits = linear(x, weight, device=each_way)
    rows = embedding(OTHER_IDS, weight, device=each_way)
    refused = right = 0

    def inner() -> None:
        nonlocal refused, right
        try:
            found = embedding(OTHER_IDS, weight, device=each_way)
        except DeviceError as error:
            check_refusal(error)
            refused += 1
        else:
            np.testing.assert_array_equal(found, rows)
            right += 1

    step, reached = 1, True
    while reached:
        found, reached = call_at(step, lambda: linear(x, weight, device=each_way), inner)
        np.testing.assert_array_equal(found, logits, err_msg=f"another call at line {step}")
        step += 1
    assert refused > 30, "a call holds its buffers for more lines than that"
    assert right > 10, "before and after that, another call is welcome"


def test_calls_on_each_others_device(each_way: Any, own_device: Any) -> None:
    """Two threads, each of which starts a call on the other's device within its own."""
    weight = random_weight(ODD, "float16")
    expected = embedding(IDS, weight, device=each_way)
    embedding(IDS, weight, device=own_device)
    within = threading.Barrier(2)

    def work(first: Any, second: Any) -> list[str]:
        said: list[str] = []

        def inner() -> None:
            within.wait(HANGS)  # both threads hold their device now
            with pytest.raises(DeviceError) as caught:
                embedding(OTHER_IDS, weight, device=second)
            said.append(str(caught.value))

        context = context_for(first)
        read = context.round_trip.read

        def and_call(staging: Any, out: Any) -> None:
            inner()
            read(staging, out)

        vars(context.round_trip)["read"] = and_call
        try:
            found = embedding(IDS, weight, device=first)
        finally:
            del vars(context.round_trip)["read"]
        np.testing.assert_array_equal(found, expected)
        return said

    said: list[str] = []
    threads = [
        threading.Thread(target=lambda pair=pair: said.extend(work(*pair)), daemon=True)
        for pair in ((each_way, own_device), (own_device, each_way))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS)
    assert len(said) == 2, "the threads wait for each other"
    assert all("already in a call" in words for words in said)
    for device in (each_way, own_device):  # a call after a call on another device is welcome
        np.testing.assert_array_equal(embedding(IDS, weight, device=device), expected)


def test_a_call_at_lines_of_the_first_call(here: Any) -> None:
    """While the device is tried out, kernels are compiled and a weight is uploaded."""
    x = random_x(3, ODD.embed_dim)
    expected = None
    step, reached = 1, True
    while reached:
        device = here.request_device_sync(required_limits=dict(here.limits))
        weight = anew(random_weight(ODD, "float16"))

        def inner(device: Any = device, weight: Any = weight) -> None:
            try:
                embedding(OTHER_IDS, weight, device=device)
            except DeviceError as error:
                check_refusal(error)

        def outer(device: Any = device, weight: Any = weight) -> Any:
            return linear(x, weight, device=device)

        found, reached = call_at(step, outer, inner)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected, err_msg=f"another call at line {step}")
        step += 41
    check(device)


def test_finalizers_that_the_collector_runs(each_way: Any) -> None:
    weight = random_weight(ODD, "float16")
    expected = embedding(IDS, weight, device=each_way)
    rows = embedding(OTHER_IDS, weight, device=each_way)
    seen = []

    class Ring:
        """Only the collector frees it."""

        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            try:
                found = embedding(OTHER_IDS, weight, device=each_way)
                seen.append(np.array_equal(found, rows))
            except DeviceError as error:
                seen.append("already in a call" in str(error))

    thresholds = gc.get_threshold()
    gc.set_threshold(17, 5, 5)
    try:
        for _ in range(300):
            Ring()
            np.testing.assert_array_equal(embedding(IDS, weight, device=each_way), expected)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len(seen) == 300
    assert all(seen)


def test_signal_handlers(each_way: Any) -> None:
    weight = random_weight(ODD, "float16")
    expected = embedding(IDS, weight, device=each_way)
    rows = embedding(OTHER_IDS, weight, device=each_way)
    seen = []

    def handler(*_: Any) -> None:
        try:
            found = embedding(OTHER_IDS, weight, device=each_way)
            seen.append(np.array_equal(found, rows))
        except DeviceError as error:
            seen.append("already in a call" in str(error))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.0137)
    try:
        while len(seen) < 60:
            np.testing.assert_array_equal(embedding(IDS, weight, device=each_way), expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(seen)


def test_a_device_destroyed_within_a_call_of_the_same_thread(each_way: Any) -> None:
    """The call has its result; the device goes when the call ends."""
    weight, x = random_weight(ODD, "float16"), random_x(3, ODD.embed_dim)
    expected = linear(x, weight, device=each_way)
    context = context_for(each_way)
    read = context.round_trip.read

    def destroyed(staging: Any, out: Any) -> None:
        each_way.destroy()
        read(staging, out)

    vars(context.round_trip)["read"] = destroyed
    np.testing.assert_array_equal(linear(x, weight, device=each_way), expected)
    assert context.guard.is_lost
    with pytest.raises(DeviceError, match="is lost: it was destroyed"):
        linear(x, weight, device=each_way)
