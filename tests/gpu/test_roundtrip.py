"""The two ways to a device and back: which is chosen, and that both do the same."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cases import ODD, PRIME, WIDE, anew, assert_same_bits, random_weight, random_x
from tests.devices import drivers, run_python, swiftshader
from tests.ways import IDS, Without, check, probes
from wgpu_q4 import DeviceError, embedding, linear, reference
from wgpu_q4.device import context_for, native
from wgpu_q4.device.adapter import MAPPABLE, list_adapters
from wgpu_q4.device.roundtrip import (
    ENVIRONMENT_VARIABLE,
    PROBE_BYTES,
    WAYS,
    PublicRoundTrip,
    choose_round_trip,
)

# Which


def test_the_native_way_is_chosen_where_it_works(own_device: Any) -> None:
    found = context_for(own_device).round_trip
    assert (found.name, found.reason) == ("native", "")


def test_a_way_that_does_not_exist(own_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "fast")
    with pytest.raises(DeviceError, match="must be native or public, not 'fast'"):
        embedding(IDS, random_weight(ODD, "float16"), device=own_device)


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
    changed: dict[str, Any], reason: str, own_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is told, and the ops work; asked for by name, the way is an error."""
    from wgpu.backends import wgpu_native

    real = wgpu_native.lib
    monkeypatch.setattr(wgpu_native, "lib", Without(real, **changed))
    found = context_for(own_device).round_trip
    assert found.name == "public"
    assert reason in found.reason
    with pytest.raises(DeviceError, match="the native way does not work on this device: "):
        choose_round_trip(own_device, *probes(context_for(own_device)), "native")
    monkeypatch.setattr(wgpu_native, "lib", real)
    check(own_device)


def test_a_foreign_implementation_has_no_native_way(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = SimpleNamespace(__name__="othergpu")
    monkeypatch.setattr(native, "implementation_of", lambda device: foreign)
    with pytest.raises(DeviceError, match="othergpu is not wgpu-native"):
        native.NativeRoundTrip(object())


def test_dawn_is_used_publicly() -> None:
    chosen = drivers(swiftshader().resolve()) | {"WGPU_Q4_IMPLEMENTATION": "wgpudawn"}
    program = (
        "import numpy, wgpu_q4; from wgpu_q4.device import context_for;"
        "w = wgpu_q4.quantize(numpy.eye(64, dtype='f4'));"
        "print(wgpu_q4.argmax(numpy.eye(64, dtype='f4')[3:5], w),"
        "context_for().round_trip.name, context_for().round_trip.reason)"
    )
    said = run_python("-W", "ignore", "-c", program, **chosen)
    assert said.split("\n")[0] == "[3 4] public wgpudawn is not wgpu-native"


# What they do


def test_both_ways_work(each_way: Any) -> None:
    check(each_way)
    check(each_way)


def test_both_ways_give_the_same_bits(own_device: Any) -> None:
    context = context_for(own_device)
    weight, x = random_weight(WIDE, "float16"), random_x(5, WIDE.embed_dim)
    ours = linear(x, weight, device=own_device)
    vars(context)["round_trip"] = PublicRoundTrip(own_device)
    assert_same_bits(linear(x, weight, device=own_device), ours)


@pytest.mark.parametrize("nbytes", [1, 3, 4, 63, 64])
def test_any_number_of_bytes(nbytes: int, each_way: Any) -> None:
    context = context_for(each_way)
    source, staging = probes(context)
    values = np.arange(100, 100 + PROBE_BYTES, dtype=np.uint8)
    context.write(source, values)
    out = np.zeros(nbytes + 4, np.uint8)
    context.round_trip.run([], source, staging, out[:nbytes])
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
    buffers = context.scratch._buffers
    mapped = {role for role, buffer in buffers.items() if buffer.usage & map_read}
    small = {"linear to map", "embedding to map", "kept of logits to map"} if features else set()
    assert mapped == small | {"staging"}
    assert {"logits", "embedding"} <= set(buffers) - mapped


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


def test_a_result_that_several_threads_copy(each_way: Any) -> None:
    """6 MB and 28 bytes."""
    weight = random_weight(PRIME, "float16")
    ids = np.random.default_rng(1).integers(0, PRIME.vocab, 20_833)
    assert_same_bits(embedding(ids, weight, device=each_way), reference.embedding(ids, weight))


def test_sizes_are_written_when_they_change(
    own_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, written = context_for(own_device), []
    weight = anew(random_weight(ODD, "float16"))
    check(own_device)
    write = context.round_trip.write

    def spy(buffer: Any, data: Any) -> None:
        written.append(buffer.label)
        write(buffer, data)

    monkeypatch.setattr(context.round_trip, "write", spy)
    for rows in (2, 2, 1, 2):
        x = random_x(rows, ODD.embed_dim)
        error = abs(linear(x, weight, device=own_device) - reference.linear(x, weight))
        assert np.all(error <= reference.linear_bound(x, weight))
        embedding(IDS, weight, device=own_device)  # whose sizes are others, in another buffer
    sizes = [label for label in written if "sizes" in label]
    assert sizes == ["wgpu_q4 sizes of linear"] * 3
    assert written.count("wgpu_q4 x") == 4


def test_threads_share_a_device(each_way: Any) -> None:
    """And with them somebody who reads buffers himself, whom wgpu-py's own thread answers."""
    weight = anew(random_weight(PRIME, "float16"))
    context = context_for(each_way)
    other = context.create_buffer("another", 64, "COPY_DST", "COPY_SRC")
    each_way.queue.write_buffer(other, 0, np.arange(64, dtype=np.uint8))
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((2, 72)).astype(np.float32)
        expected, bound = reference.linear(x, weight), reference.linear_bound(x, weight)
        try:
            for _ in range(100):
                assert np.all(abs(linear(x, weight, device=each_way) - expected) <= bound)
                assert bytes(each_way.queue.read_buffer(other)) == bytes(range(64))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
