"""What goes wrong on a device, in either way to it: errors, interrupts, a lost device."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.cases import ODD, random_weight, random_x
from tests.devices import drivers, run_python, swiftshader
from tests.ways import IDS, Without, check, probes
from wgpu_q4 import DeviceError, embedding, linear
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.adapter import list_adapters
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.roundtrip import ENVIRONMENT_VARIABLE, WAYS
from wgpu_q4.kernels import PROBE_HALVES, Dispatch


def some_step(context: Context) -> Step:
    """A step that could run: what the probe of half precision runs."""
    buffers = {name: context.create_buffer(name, 256, "STORAGE") for name in ("t_out", "t_pairs")}
    return context.pipelines.step(Dispatch(PROBE_HALVES, {}, (1, 1, 1)), buffers)


def test_an_error_of_the_device_is_raised_and_not_only_logged(each_way: Any) -> None:
    """A dispatch that is not allowed: wgpu finds it when the pass ends, or later."""
    context = context_for(each_way)
    source, staging = probes(context)
    beyond = some_step(context)._replace(workgroups=(1 << 20, 1, 1))
    with pytest.raises(context.implementation.GPUError, match=r"(?i)dispatch"):
        context.round_trip.run([beyond], source, staging, np.zeros(4, np.uint8))
    check(each_way)


def test_an_error_while_recording_leaves_the_device_usable(each_way: Any) -> None:
    context = context_for(each_way)
    source, _ = probes(context)
    broken = some_step(context)._replace(bind_group=None)
    with pytest.raises((AttributeError, TypeError)):
        context.run([broken], source, np.zeros(4, np.uint8))
    check(each_way)


def test_a_wait_that_was_interrupted(each_way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next calls map another buffer and do not take the late answer for theirs."""
    context = context_for(each_way)
    check(each_way)
    kind = type(context.round_trip)
    read = kind.read

    def interrupted(self: Any, staging: Any, out: Any) -> None:
        monkeypatch.setattr(kind, "read", read)
        if self.name == "native":
            lib = self._lib
            self._lib = Without(lib, wgpuDevicePoll=interrupt)
            try:
                read(self, staging, out)
            finally:
                self._lib = lib
        staging.map_async("READ")
        raise KeyboardInterrupt

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedding(IDS, random_weight(ODD, "float16"), device=each_way)
    for _ in range(3):
        check(each_way)


LOST = """
import gc, sys, warnings
import numpy as np
import wgpu_q4
warnings.simplefilter("ignore")
device = wgpu_q4.request_device()
weight = wgpu_q4.quantize(np.ones((3, 8), np.float32), 8)
other = wgpu_q4.quantize(np.ones((3, 8), np.float32), 8)
wgpu_q4.linear(np.ones((1, 8), np.float32), weight, device=device)
device.destroy()

def through_textures():
    with wgpu_q4.forced(storage="texture3d"):
        wgpu_q4.embedding(np.array([1]), weight, device=device)

for call in (
    lambda: wgpu_q4.linear(np.ones((1, 8), np.float32), weight, device=device),
    lambda: wgpu_q4.embedding(np.array([1]), weight, device=device),
    lambda: through_textures(),
    lambda: wgpu_q4.embedding(np.array([1]), other, device=device),
):
    try:
        call()
        print("nothing")
    except wgpu_q4.DeviceError as error:
        print("is lost: it was destroyed" in str(error) and "request_device" in str(error))
    gc.collect()  # what the call that failed left behind must not take the process down
sys.stdout.flush()
import os
os._exit(0)  # wgpudawn may crash on its way out
"""


@pytest.mark.parametrize(
    "variables", [{}, {ENVIRONMENT_VARIABLE: "public"}, {"WGPU_Q4_IMPLEMENTATION": "wgpudawn"}]
)
def test_a_destroyed_device_is_a_device_error(variables: dict[str, str]) -> None:
    if "WGPU_Q4_IMPLEMENTATION" in variables:
        variables = variables | drivers(swiftshader().resolve())
    assert run_python("-c", LOST, **variables).split() == ["True"] * 4


def test_a_device_destroyed_during_a_call(each_way: Any) -> None:
    """After the pass was recorded, before its result is here."""
    context = context_for(each_way)
    check(each_way)
    way = context.round_trip
    read = way.read

    def destroyed(staging: Any, out: Any) -> None:
        each_way.destroy()
        read(staging, out)

    vars(way)["read"] = destroyed
    with pytest.raises(DeviceError, match=r"lost|did not hand a result back"):
        linear(random_x(1, ODD.embed_dim), random_weight(ODD, "float16"), device=each_way)


def test_a_dropped_device_is_not_kept(each_way: Any) -> None:
    import weakref

    adapter = list_adapters("wgpu")[0]
    device = adapter.request_device_sync(required_limits=dict(adapter.limits))
    check(device)
    gone = weakref.ref(device)
    del device
    gc.collect()
    assert gone() is None
    check(each_way)


INTERRUPTED = """
import os, signal, threading, warnings
import numpy as np
import wgpu_q4
warnings.simplefilter("ignore")
weight = wgpu_q4.quantize(np.random.default_rng(0).standard_normal((512, 128), np.float32))
x = np.ones((8, 128), np.float32)
expected = wgpu_q4.linear(x, weight)
for delay in np.linspace(0.001, 0.02, 25):
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            wgpu_q4.linear(x, weight)
    except KeyboardInterrupt:
        pass
    assert np.array_equal(wgpu_q4.linear(x, weight), expected)
print("whole")
"""


@pytest.mark.parametrize("way", WAYS)
def test_interrupts_leave_nothing_behind(way: str) -> None:
    """Control-C at any moment, and the next result is right."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env=os.environ | {ENVIRONMENT_VARIABLE: way},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["whole"], done.stderr
