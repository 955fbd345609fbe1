"""A program that ends while daemon threads are in calls ends well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.devices import run_python
from wgpu_q4.device.roundtrip import ENVIRONMENT_VARIABLE

START = """
import random, threading, time, warnings
import numpy as np
import wgpu_q4
from wgpu_q4.device import context_for
warnings.simplefilter("ignore")
weight = wgpu_q4.quantize(np.random.default_rng(0).standard_normal((200, 64)).astype("f4"))
x = np.ones((100, 64), "f4")
"""

WAIT = """
wgpu_q4.embedding(np.arange(3), weight)
round_trip = context_for().round_trip
read, begun = round_trip.read, threading.Event()

def slowly(target, out):
    begun.set()
    time.sleep(0.5)
    read(target, out)
    print("the call has ended", flush=True)

vars(round_trip)["read"] = slowly

def work():
    wgpu_q4.embedding(np.arange(3), weight)
    wgpu_q4.embedding(np.arange(3), weight)

threading.Thread(target=work, daemon=True).start()
begun.wait()
"""

FIRST_CALL = """
wgpu_q4.embedding(np.arange(3), weight)
threading.Thread(target=lambda: wgpu_q4.linear(x, weight), daemon=True).start()
time.sleep(random.uniform(0, 0.5))
"""

MANY_CALLS = """
def work():
    while True:
        wgpu_q4.linear(x, weight)

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(random.uniform(0.1, 0.8))
"""

DEVICES = """
def work():
    while True:
        wgpu_q4.embedding(np.arange(3), weight, device=wgpu_q4.request_device())

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(random.uniform(0, 0.5))
"""


@pytest.mark.parametrize("way", ["native", "public"])
def test_the_end_waits_for_a_call_and_lets_no_other_begin(way: str) -> None:
    said = run_python("-c", START + WAIT, **{ENVIRONMENT_VARIABLE: way})
    assert said.splitlines() == ["the call has ended"]


@pytest.mark.parametrize("program", [FIRST_CALL, MANY_CALLS, DEVICES], ids=["first", "many", "new"])
def test_the_end_at_any_moment(program: str) -> None:
    """Four at a time; `run_python` raises for a process that crashes."""
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(run_python, "-c", START + program) for _ in range(4)]
        assert {end.result() for end in ends} == {""}


def test_a_call_after_the_locks_were_taken() -> None:
    """The functions that `atexit` runs may look rows up."""
    program = (
        "import atexit\natexit.register(lambda: print(wgpu_q4.embedding([1], weight).shape))\n"
    )
    program = program.replace("import atexit\n", START + "import atexit\n")
    assert run_python("-c", program).split() == ["(1,", "64)"]
    assert run_python("-c", program + "wgpu_q4.embedding([2], weight)").split() == ["(1,", "64)"]
