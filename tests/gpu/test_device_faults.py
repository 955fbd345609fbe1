"""What goes wrong on a device, in either way to it: errors, interrupts, a lost device."""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import wgpu_q4
from tests.cases import ODD, random_weight, random_x
from tests.devices import drivers, run_python, swiftshader
from tests.ways import IDS, Without, check, probes
from wgpu_q4 import DeviceArray, DeviceError, embedding, linear, recording, to_device
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.adapter import list_adapters
from wgpu_q4.device.context import _default_lock as default_lock
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.recording import current_recording
from wgpu_q4.device.roundtrip import ENVIRONMENT_VARIABLE
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
    """After the pass was recorded, before its result is here, and not through `Guard.destroy`."""
    context = context_for(each_way)
    check(each_way)
    way = context.round_trip
    read = way.read

    def destroyed(staging: Any, out: Any) -> None:
        type(each_way).destroy(each_way)
        read(staging, out)

    vars(way)["read"] = destroyed
    with pytest.raises(DeviceError, match="is lost"):
        linear(random_x(1, ODD.embed_dim), random_weight(ODD, "float16"), device=each_way)


def test_a_device_that_is_lost_under_device_arrays(each_way: Any) -> None:
    """Not through `Guard.destroy`, so that nobody knows before the first call."""
    weight, ids = random_weight(ODD, "float16"), to_device(IDS, each_way)
    with recording(each_way) as recorded:
        rows = embedding(ids, weight)
    rows.numpy()
    type(each_way).destroy(each_way)
    uses: list[Callable[[], object]] = [
        recorded.replay,
        lambda: recorded.replay(500),
        lambda: embedding(ids, weight, out=rows),
        rows.wait,
        rows.numpy,
        lambda: ids.write(IDS),
        lambda: to_device(IDS, each_way),
    ]
    for use in uses:
        with pytest.raises(DeviceError, match="is lost"):
            use()


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


def interrupt_at(step: int, call: Callable[[], Any]) -> bool:
    """Call, and press Control-C when the package is about to run its ``step``-th line.

    Lines with ``with`` do not count: Python comes back to them to leave the block, and looks for
    signals before that and after it, but not in between.

    Returns:
        False if the call ended before that line.
    """
    package = str(Path(wgpu_q4.__file__).parent)
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(package):
            return None
        code = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and not linecache.getline(*code).strip().startswith("with "):
            seen += 1
            if seen == step:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_interrupts_leave_nothing_behind(each_way: Any) -> None:
    """Control-C at any line, and the next result is right."""
    weight, x = random_weight(ODD, "float16"), random_x(3, ODD.embed_dim)

    def call() -> Any:
        return linear(x, weight, device=each_way)

    def is_free(lock: Any) -> bool:
        free: bool = lock.acquire(blocking=False)
        if free:
            lock.release()
        return free

    expected, step = call(), 1
    with ThreadPoolExecutor(1) as other_thread:
        while interrupt_at(step, call):
            np.testing.assert_array_equal(call(), expected, err_msg=f"interrupted at {step}")
            for lock in (context_for(each_way).lock, default_lock):
                assert other_thread.submit(is_free, lock).result(), f"interrupted at {step}"
            step += 1
    assert step > 50, "a call runs more lines than that"


def test_interrupts_of_an_empty_block(each_way: Any) -> None:
    """Control-C at any line of a recording, and the thread is in the block of none."""

    def call() -> None:
        with recording(each_way):
            pass

    step = 1
    while interrupt_at(step, call):
        assert current_recording() is None, f"interrupted at {step}"
        step += 1
    assert step > 20, "a recording runs more lines than that"


def test_interrupts_of_calls_on_device_arrays(each_way: Any) -> None:
    """Control-C at any line of a recording, a replay and a read, and the next result is right."""
    weight = random_weight(ODD, "float16")
    ids = to_device(IDS, each_way)
    out = DeviceArray.empty((len(IDS), ODD.embed_dim), device=each_way)

    def call() -> Any:
        with recording(each_way) as recorded:
            linear(embedding(ids, weight, out=out), weight)
        recorded.replay(3)
        embedding(ids, weight, out=out)
        return linear(out, weight).numpy()

    expected, step = call(), 1
    while interrupt_at(step, call):
        assert current_recording() is None, f"interrupted at {step}"
        np.testing.assert_array_equal(call(), expected, err_msg=f"interrupted at {step}")
        step += 3  # every line is too many; each kind of line comes
    assert step > 300, "a call runs more lines than that"
