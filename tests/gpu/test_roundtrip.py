"""The two ways to a device and back: each forced, compared with the other, and made to fail."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cases import ODD, PRIME, WIDE, anew, assert_same_bits, random_weight, random_x
from tests.devices import drivers, run_python, swiftshader
from wgpu_q4 import DeviceError, embedding, linear, reference
from wgpu_q4.device import Context, context_for, roundtrip
from wgpu_q4.device.adapter import MAPPABLE, list_adapters
from wgpu_q4.device.roundtrip import (
    ENVIRONMENT_VARIABLE,
    PROBE_BYTES,
    WAYS,
    NativeRoundTrip,
    PublicRoundTrip,
    choose_round_trip,
)

IDS = np.array([12, 0, 5])


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device of its own for each test, and no choice from outside."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    adapter = list_adapters("wgpu")[0]
    return adapter.request_device_sync(required_limits=dict(adapter.limits))


@pytest.fixture(params=WAYS)
def forced(request: pytest.FixtureRequest, device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same, used in this way."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, request.param)
    assert context_for(device).round_trip.name == request.param
    return device


def probes(context: Context) -> tuple[Any, Any]:
    return (
        context.create_buffer("source", PROBE_BYTES, "COPY_DST", "COPY_SRC"),
        context.create_buffer("staging", PROBE_BYTES, "COPY_DST", "MAP_READ"),
    )


def check(device: Any) -> None:
    """Both ops give what they should."""
    weight = anew(random_weight(ODD, "float16"))
    assert_same_bits(embedding(IDS, weight, device=device), reference.embedding(IDS, weight))
    x = random_x(3, ODD.embed_dim)
    logits = linear(x, weight, device=device)
    assert np.all(abs(logits - reference.linear(x, weight)) <= reference.linear_bound(x, weight))
    ids = linear(x, weight, device=device, reduce="argmax")
    np.testing.assert_array_equal(ids, logits.argmax(-1))


# Which


def test_the_native_way_is_chosen_where_it_works(device: Any) -> None:
    found = context_for(device).round_trip
    assert (found.name, found.reason) == ("native", "")


def test_a_way_that_does_not_exist(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "fast")
    with pytest.raises(DeviceError, match="must be native or public, not 'fast'"):
        embedding(IDS, random_weight(ODD, "float16"), device=device)


class Without:
    """wgpu-native's functions, but for some."""

    def __init__(self, lib: Any, **changed: Any) -> None:
        self._lib, self._changed = lib, changed

    def __getattr__(self, name: str) -> Any:
        return self._changed[name] if name in self._changed else getattr(self._lib, name)


def copy_nothing(*_: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"wgpuDevicePoll": None}, "no wgpuDevicePoll"),
        (
            {"wgpuCommandEncoderCopyBufferToBuffer": copy_nothing},
            "64 known bytes came back changed",
        ),
        ({"wgpuQueueWriteBuffer": copy_nothing}, "64 known bytes came back changed"),
        ({"WGPUMapMode_Read": "read"}, "TypeError"),
    ],
)
def test_what_does_not_work_is_not_used(
    changed: dict[str, Any], reason: str, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told why, and the ops work; asked for by name, it is an error."""
    from wgpu.backends import wgpu_native

    real = wgpu_native.lib
    monkeypatch.setattr(wgpu_native, "lib", Without(real, **changed))
    found = context_for(device).round_trip
    assert found.name == "public"
    assert reason in found.reason
    with pytest.raises(DeviceError, match="the native way does not work on this device: "):
        choose_round_trip(device, *probes(context_for(device)), "native")
    monkeypatch.setattr(wgpu_native, "lib", real)
    check(device)


def test_a_foreign_implementation_has_no_native_way(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = SimpleNamespace(__name__="othergpu")
    monkeypatch.setattr(roundtrip, "implementation_of", lambda device: foreign)
    with pytest.raises(DeviceError, match="othergpu is not wgpu-native"):
        NativeRoundTrip(object(), None, None)


def test_dawn_is_used_publicly() -> None:
    chosen = drivers(swiftshader().resolve()) | {"WGPU_Q4_IMPLEMENTATION": "wgpudawn"}
    program = (
        "import numpy, wgpu_q4; from wgpu_q4.device import context_for;"
        "w = wgpu_q4.quantize(numpy.eye(64, dtype='f4'));"
        "print(wgpu_q4.linear(numpy.eye(64, dtype='f4')[3:5], w, reduce='argmax'),"
        "context_for().round_trip.name, context_for().round_trip.reason)"
    )
    said = run_python("-W", "ignore", "-c", program, **chosen)
    assert said.split("\n")[0] == "[3 4] public wgpudawn is not wgpu-native"


# What they do


def test_both_ways_work(forced: Any) -> None:
    check(forced)
    check(forced)


def test_both_ways_give_the_same_bits(device: Any) -> None:
    context = context_for(device)
    weight, x = random_weight(WIDE, "float16"), random_x(5, WIDE.embed_dim)
    native = linear(x, weight, device=device)
    vars(context)["round_trip"] = PublicRoundTrip(device)
    assert_same_bits(linear(x, weight, device=device), native)


@pytest.mark.parametrize("nbytes", [1, 3, 4, 63, 64])
def test_any_number_of_bytes(nbytes: int, forced: Any) -> None:
    context = context_for(forced)
    source, staging = probes(context)
    values = np.arange(100, 100 + PROBE_BYTES, dtype=np.uint8)
    context.write(source, values)
    out = np.zeros(nbytes + 4, np.uint8)
    context.round_trip.run(lambda _pass: source, lambda _nbytes: staging, out[:nbytes])
    np.testing.assert_array_equal(out, [*values[:nbytes], 0, 0, 0, 0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("features", [[], [MAPPABLE]], ids=["copied", "mapped"])
def test_a_small_result_is_written_where_it_is_read(
    features: list[str], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device with the feature, which these drivers have; never the logits behind an id."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, way)
    adapter = list_adapters("wgpu")[0]
    device = adapter.request_device_sync(
        required_features=features, required_limits=dict(adapter.limits)
    )
    context = context_for(device)
    for _ in range(2):
        check(device)
    weight = random_weight(WIDE, "float16")
    ids = np.arange(2731) % WIDE.vocab  # 96 floats each: 128 bytes more than 1 MiB
    assert_same_bits(embedding(ids, weight, device=device), reference.embedding(ids, weight))
    map_read = int(context.implementation.BufferUsage.MAP_READ)
    mapped = {role for role, buffer in context._scratch.items() if buffer.usage & map_read}
    small = {"linear to map", "embedding to map", "kept of logits to map"} if features else set()
    assert mapped == small | {"staging"}
    assert {"logits", "embedding"} <= set(context._scratch) - mapped


def test_a_device_of_ours_has_the_feature() -> None:
    assert MAPPABLE in context_for().device.features
    assert context_for().maps_results


def test_results_that_are_not_there_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that maps other memory than the kernel writes: its buffers read as zeros."""
    adapter = list_adapters("wgpu")[0]
    device = adapter.request_device_sync(required_features=[MAPPABLE])
    context = context_for(device)
    way = context.round_trip
    read = way.read

    def stale(staging: Any, out: Any) -> None:
        read(staging, out)
        if staging.usage & int(context.implementation.BufferUsage.STORAGE):
            out[:] = 0

    vars(way)["read"] = stale
    assert not context.maps_results
    check(device)


def test_a_result_that_several_threads_copy(forced: Any) -> None:
    """6 MB and 28 bytes."""
    weight = random_weight(PRIME, "float16")
    ids = np.random.default_rng(1).integers(0, PRIME.vocab, 20_833)
    assert_same_bits(embedding(ids, weight, device=forced), reference.embedding(ids, weight))


def test_sizes_are_written_when_they_change(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context, written = context_for(device), []
    weight = anew(random_weight(ODD, "float16"))
    check(device)
    write = context.write

    def spy(buffer: Any, data: Any) -> None:
        written.append(buffer.label)
        write(buffer, data)

    monkeypatch.setattr(context, "write", spy)
    for rows in (2, 2, 1, 2):
        x = random_x(rows, ODD.embed_dim)
        error = abs(linear(x, weight, device=device) - reference.linear(x, weight))
        assert np.all(error <= reference.linear_bound(x, weight))
        embedding(IDS, weight, device=device)  # whose sizes are others, in another buffer
    sizes = [label for label in written if "sizes" in label]
    assert sizes == ["wgpu_q4 sizes of linear"] * 3
    assert written.count("wgpu_q4 x") == 4


def test_threads_share_a_device(forced: Any) -> None:
    """And with them somebody who reads buffers himself, whom wgpu-py's own thread answers."""
    weight = anew(random_weight(PRIME, "float16"))
    context = context_for(forced)
    other = context.create_buffer("another", 64, "COPY_DST", "COPY_SRC")
    forced.queue.write_buffer(other, 0, np.arange(64, dtype=np.uint8))
    problems: list[BaseException] = []
    end = time.monotonic() + 2

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((2, 72)).astype(np.float32)
        expected, bound = reference.linear(x, weight), reference.linear_bound(x, weight)
        try:
            while time.monotonic() < end:
                assert np.all(abs(linear(x, weight, device=forced) - expected) <= bound)
                assert bytes(forced.queue.read_buffer(other)) == bytes(range(64))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


# What goes wrong


def test_an_error_of_the_device_is_raised_and_not_only_logged(forced: Any) -> None:
    """A dispatch that is not allowed: wgpu finds it when the pass ends, or later."""
    context = context_for(forced)
    source, staging = probes(context)

    def record(compute_pass: Any) -> Any:
        compute_pass.dispatch_workgroups(1, 1, 1)
        return source

    with pytest.raises(context.implementation.GPUError, match=r"(?i)pipeline"):
        context.round_trip.run(record, lambda _nbytes: staging, np.zeros(4, np.uint8))
    check(forced)


def test_an_error_while_recording_leaves_the_device_usable(forced: Any) -> None:
    context = context_for(forced)

    def record(_pass: Any) -> Any:
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        context.run(record, np.zeros(4, np.uint8))
    check(forced)


def test_a_wait_that_was_interrupted(forced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next calls map another buffer and do not take the late answer for theirs."""
    context = context_for(forced)
    check(forced)
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
        embedding(IDS, random_weight(ODD, "float16"), device=forced)
    for _ in range(3):
        check(forced)


LOST = """
import sys, warnings
import numpy as np
import wgpu_q4
warnings.simplefilter("ignore")
device = wgpu_q4.request_device()
weight = wgpu_q4.quantize(np.ones((3, 8), np.float32), 8)
other = wgpu_q4.quantize(np.ones((3, 8), np.float32), 8)
wgpu_q4.linear(np.ones((1, 8), np.float32), weight, device=device)
device.destroy()
for call in (
    lambda: wgpu_q4.linear(np.ones((1, 8), np.float32), weight, device=device),
    lambda: wgpu_q4.embedding(np.array([1]), weight, device=device),
    lambda: wgpu_q4.embedding(np.array([1]), weight, device=device, storage="texture3d"),
    lambda: wgpu_q4.embedding(np.array([1]), other, device=device),
):
    try:
        call()
        print("nothing")
    except wgpu_q4.DeviceError as error:
        print("is lost: it was destroyed" in str(error) and "request_device" in str(error))
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


def test_a_device_destroyed_during_a_call(forced: Any) -> None:
    """After the pass was recorded, before its result is here."""
    context = context_for(forced)
    check(forced)
    way = context.round_trip
    read = way.read

    def destroyed(staging: Any, out: Any) -> None:
        forced.destroy()
        read(staging, out)

    vars(way)["read"] = destroyed
    with pytest.raises(DeviceError, match=r"lost|did not hand a result back"):
        linear(random_x(1, ODD.embed_dim), random_weight(ODD, "float16"), device=forced)


def test_a_dropped_device_is_not_kept(forced: Any) -> None:
    import weakref

    adapter = list_adapters("wgpu")[0]
    device = adapter.request_device_sync(required_limits=dict(adapter.limits))
    check(device)
    gone = weakref.ref(device)
    del device
    gc.collect()
    assert gone() is None
    check(forced)


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
