"""Control-C while native code calls a function of wgpu-py: it arrives, and nothing else does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.cases import ODD, anew, random_weight
from tests.devices import drivers, run_python, swiftshader
from tests.ways import IDS, check
from wgpu_q4 import embedding, request_device
from wgpu_q4.device.interrupts import Postponed


@pytest.fixture(autouse=True)
def control_c_interrupts() -> Iterator[None]:
    """A process that a shell started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_within(function: str, call: Callable[[], Any]) -> bool:
    """Call, and send this process SIGINT as soon as wgpu's ``function`` starts, the first time.

    Returns:
        True if it started.
    """
    started = False

    def trace(frame: FrameType, _event: str, _: Any) -> None:
        nonlocal started
        code = frame.f_code
        if not started and code.co_name == function and "wgpu" in code.co_filename:
            started = True
            signal.raise_signal(signal.SIGINT)

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return started


def test_control_c_while_a_device_is_requested(here: Any) -> None:
    name = here.info["device"]
    with pytest.raises(KeyboardInterrupt):
        interrupted_within("request_device_callback", lambda: request_device(name))
    check(request_device(name))


ON_DAWN = """
import signal, warnings
import pytest
import wgpu_q4
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.gpu.test_interrupts import interrupted_on_dawn
warnings.simplefilter("ignore")
interrupted_on_dawn()
print("right", flush=True)
import os
os._exit(0)  # wgpudawn may crash on its way out
"""


def interrupted_on_dawn() -> None:
    """What a process with Dawn does, whose functions all run in the thread that waits."""
    with pytest.raises(KeyboardInterrupt):
        interrupted_within("request_device_callback", request_device)
    device = request_device()
    check(device)
    weight = anew(random_weight(ODD, "float16"))
    with pytest.raises(KeyboardInterrupt):
        interrupted_within("buffer_map_callback", lambda: embedding(IDS, weight, device=device))
    check(device)


def test_control_c_on_dawn() -> None:
    variables = drivers(swiftshader().resolve()) | {"WGPU_Q4_IMPLEMENTATION": "wgpudawn"}
    assert run_python("-c", ON_DAWN, **variables).split() == ["right"]


def _raise_three(seen: list[str]) -> None:
    with Postponed():
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGUSR1)
        seen.append("the block")


def test_handlers_run_when_the_block_has_ended() -> None:
    seen: list[str] = []
    before = [
        signal.signal(signal.SIGUSR1, lambda *_: seen.append("first")),
        signal.signal(signal.SIGUSR2, lambda *_: seen.append("second")),
    ]
    own = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    try:
        with pytest.raises(KeyboardInterrupt):
            _raise_three(seen)
        assert seen == ["the block", "second", "first"]
        assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == own
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
