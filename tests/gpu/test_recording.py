"""Recordings of a user's own kernels: when they run, how often, and through whose encoder."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import LONG, random_weight, random_x
from tests.recorder import Recorder
from tests.user_kernels import UserKernels
from wgpu_q4 import DeviceArray, DeviceError, Recording, linear, recording, to_device
from wgpu_q4.device import commands, context_for

START = np.arange(100, dtype=np.uint32)
ADDED = np.array([3, 1, 4, 1, 5], np.uint32)


def expected(values: NDArray[np.uint32], times: int) -> NDArray[np.uint32]:
    """What so many runs of `record` make of the values."""
    for _ in range(times):
        for _ in range(2):
            values = values * np.uint32(2) + np.resize(ADDED, values.shape)
        values = ~values
    return values


def record(device: Any, values: DeviceArray, *, submit: bool = True) -> Recording:
    """Two dispatches with two bind groups, and one with one."""
    kernels = UserKernels(device, values, to_device(ADDED, device))
    with recording(device, submit=submit) as recorded:
        for _ in range(2):
            recorded.dispatch(kernels.double, kernels.groups, kernels.workgroups)
        recorded.dispatch(kernels.negate, kernels.negate_group, (kernels.workgroups, 1))
    return recorded


@pytest.fixture
def values(each_way: Any) -> DeviceArray:
    return to_device(START, each_way)


@pytest.mark.parametrize("at_a_time", [1, 7, 64])
@pytest.mark.parametrize("in_flight", [1, 64])
def test_it_runs_at_the_end_of_the_block_and_as_often_as_asked(
    each_way: Any,
    values: DeviceArray,
    at_a_time: int,
    in_flight: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many runs share a submission, and however many submissions may wait."""
    monkeypatch.setattr(commands, "DISPATCHES_AT_A_TIME", at_a_time)
    for way in ("native", "roundtrip"):
        monkeypatch.setattr(f"wgpu_q4.device.{way}.MOST_IN_FLIGHT", in_flight)
    recorded = record(each_way, values)
    assert len(recorded) == 3
    np.testing.assert_array_equal(values.numpy(), expected(START, 1))
    recorded.replay()
    recorded.replay(9)
    np.testing.assert_array_equal(values.numpy(), expected(START, 11))
    values.write(START)
    recorded.replay(2)
    np.testing.assert_array_equal(values.numpy(), expected(START, 2))


def test_one_submission(own_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording is never divided, and short ones share a submission."""
    submitted: list[int] = []
    values = to_device(START, own_device)
    way = context_for(own_device).round_trip
    submit = way._submit  # type: ignore[attr-defined]

    def spy(fill: Any, *rest: Any) -> Any:
        submitted.append(1)
        return submit(fill, *rest)

    recorded = record(own_device, values, submit=False)
    monkeypatch.setattr(way, "_submit", spy)
    recorded.replay()
    assert len(submitted) == 1
    submitted.clear()
    recorded.replay(2 + 5 + 10 + 21 + 21 + 1)  # 3 dispatches fit so often into 8, 16, 32, 64, 64
    assert len(submitted) == 6


@pytest.mark.parametrize("own_pass", [False, True])
def test_into_an_encoder_of_the_caller(each_way: Any, values: DeviceArray, own_pass: bool) -> None:
    """Between dispatches of the caller, who submits it: twice in one encoder here."""
    recorded = record(each_way, values, submit=False)
    kernels = UserKernels(each_way, values, to_device(ADDED, each_way))
    encoder = each_way.create_command_encoder()
    for _ in range(2):
        compute_pass = encoder.begin_compute_pass()
        compute_pass.set_pipeline(kernels.negate)
        compute_pass.set_bind_group(0, kernels.negate_group)
        compute_pass.dispatch_workgroups(kernels.workgroups)
        if own_pass:
            recorded.encode(compute_pass)
        compute_pass.end()
        if not own_pass:
            recorded.encode(encoder)
    np.testing.assert_array_equal(values.numpy(), START)
    each_way.queue.submit([encoder.finish()])
    np.testing.assert_array_equal(values.numpy(), expected(~expected(~START, 1), 1))


def test_a_replay_makes_nothing(each_way: Any, values: DeviceArray) -> None:
    recorded = record(each_way, values)
    recorder = Recorder(each_way)
    recorded.replay(50)
    recorded.encode(each_way.create_command_encoder())
    made = {name for name, _ in recorder.calls}
    assert made <= {"create_command_encoder"}


def test_a_block_that_raises_runs_nothing(each_way: Any, values: DeviceArray) -> None:
    kernels = UserKernels(each_way, values, to_device(ADDED, each_way))

    kept = []

    def fail() -> None:
        with recording(each_way) as recorded:
            kept.append(recorded)
            recorded.dispatch(kernels.double, kernels.groups, kernels.workgroups)
            _ = 1 // 0

    with pytest.raises(ZeroDivisionError):
        fail()
    (recorded,) = kept
    np.testing.assert_array_equal(values.numpy(), START)
    with pytest.raises(DeviceError, match="raised an error: make another recording"):
        recorded.replay()
    with recording(each_way):  # the next one is not inside of it
        pass


def test_an_empty_recording(each_way: Any) -> None:
    with recording(each_way) as recorded:
        pass
    assert len(recorded) == 0
    recorded.replay(3)
    encoder = each_way.create_command_encoder()
    recorded.encode(encoder)
    each_way.queue.submit([encoder.finish()])


def test_what_cannot_be_recorded(each_way: Any, here: Any, values: DeviceArray) -> None:
    kernels = UserKernels(each_way, values, values)
    other = here.request_device_sync(required_limits=dict(here.limits))
    of_other = UserKernels(other, to_device(START, other), to_device(ADDED, other))
    wrong: list[tuple[Any, type[Exception], str]] = [
        ((None, kernels.groups, 1), TypeError, "pipeline must be a GPUComputePipeline, not None"),
        ((kernels.double, [values], 1), TypeError, "bind_groups must be a GPUBindGroup, not Dev"),
        ((of_other.double, kernels.groups, 1), DeviceError, "pipeline is not of the device"),
        ((kernels.double, of_other.groups, 1), DeviceError, "bind_groups is not of the device"),
        ((kernels.double, kernels.groups, (1, 2, 3, 4)), ValueError, "one to three numbers"),
        ((kernels.double, kernels.groups, ()), ValueError, "one to three numbers"),
        ((kernels.double, kernels.groups, -1), ValueError, "one to three numbers"),
        ((kernels.double, kernels.groups, (1.5,)), TypeError, "float"),
        ((kernels.double, kernels.groups, 1.5), TypeError, "float"),
        ((kernels.double, kernels.groups, 1 << 32), ValueError, "to 2.32 - 1, not 4294967296"),
    ]
    with recording(each_way) as recorded:
        for arguments, error, words in wrong:
            with pytest.raises(error, match=words):
                recorded.dispatch(*arguments)
        with (
            pytest.raises(DeviceError, match="the block of another recording"),
            recording(each_way),
        ):
            pass
        encoder = each_way.create_command_encoder()
        for use in (recorded.replay, partial(recorded.encode, encoder)):
            with pytest.raises(DeviceError, match="has not ended"):
                use()
    assert len(recorded) == 0
    with pytest.raises(DeviceError, match="has ended"):
        recorded.dispatch(kernels.double, kernels.groups, 1)
    for times in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            recorded.replay(times)
    with pytest.raises(TypeError, match="GPUCommandEncoder or a GPUComputePassEncoder, not int"):
        recorded.encode(3)
    with pytest.raises(DeviceError, match="not of the device of this recording"):
        recorded.encode(other.create_command_encoder())


def test_a_grid_of_numpy(each_way: Any, values: DeviceArray) -> None:
    kernels = UserKernels(each_way, values, to_device(ADDED, each_way))
    number: Any = np.int64(kernels.workgroups)
    grids = [number, (number, 1), np.array([number, 1]), [number, 1, 1]]
    with recording(each_way) as recorded:
        for grid in grids:
            recorded.dispatch(kernels.negate, kernels.negate_group, grid)
    np.testing.assert_array_equal(values.numpy(), START)


def test_a_dispatch_that_is_not_valid_is_a_device_error(each_way: Any, values: DeviceArray) -> None:
    """A bind group is missing.  Nothing of the submission runs, and the device goes on."""
    kernels = UserKernels(each_way, values, to_device(ADDED, each_way))
    with pytest.raises(DeviceError, match="refuses a call"), recording(each_way) as recorded:
        recorded.dispatch(kernels.double, kernels.groups[0], 1)
    record(each_way, values)
    np.testing.assert_array_equal(values.numpy(), expected(START, 1))


def test_it_goes_with_the_object(own_device: Any) -> None:
    """And until then its dispatches have what they need."""
    values = to_device(START, own_device)
    view = DeviceArray.wrap(values.buffer, START.size, "uint32")
    recorded = record(own_device, values)
    del values
    gc.collect()
    recorded.replay(2)
    np.testing.assert_array_equal(view.numpy(), expected(START, 3))
    gone, scratch = weakref.ref(recorded), weakref.ref(recorded.scratch)
    del recorded
    assert (gone(), scratch()) == (None, None)


def test_an_array_is_destroyed_that_a_kernel_of_the_caller_binds(
    each_way: Any, values: DeviceArray
) -> None:
    """No recording knows of it, and wgpu-native would abort the process."""
    recorded = record(each_way, values)
    buffer = values.buffer
    buffer.destroy()
    with pytest.raises(DeviceError, match="was freed"):
        values.numpy()
    recorded.replay()
    view = DeviceArray.wrap(buffer, START.size, "uint32")
    np.testing.assert_array_equal(view.numpy(), expected(START, 2))


def test_a_lost_device(each_way: Any, values: DeviceArray) -> None:
    recorded = record(each_way, values)
    each_way.destroy()
    for times in (1, 100):
        with pytest.raises(DeviceError, match="is lost"):
            recorded.replay(times)


def test_threads(each_way: Any) -> None:
    """Each thread records for itself, and replays whole recordings."""
    arrays = [to_device(START, each_way) for _ in range(4)]

    def work(values: DeviceArray) -> None:
        recorded = record(each_way, values)
        for _ in range(10):
            recorded.replay(3)

    threads = [threading.Thread(target=work, args=(values,)) for values in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in arrays:
        np.testing.assert_array_equal(values.numpy(), expected(START, 31))


def test_one_recording_in_many_threads(each_way: Any, values: DeviceArray) -> None:
    recorded = record(each_way, values, submit=False)
    threads = [threading.Thread(target=recorded.replay, args=(5,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(values.numpy(), expected(START, 20))


def test_a_wait_ends_when_the_device_is_done(each_way: Any) -> None:
    """Also where the host polls before it sleeps, as it does for a GPU."""
    weight, x = random_weight(LONG, "float16"), to_device(random_x(8, LONG.embed_dim), each_way)
    out = DeviceArray.empty((8, LONG.vocab), device=each_way)
    with recording(each_way, submit=False) as recorded:
        for _ in range(60):
            linear(x, weight, out=out)
    round_trip = context_for(each_way).round_trip
    if round_trip.name == "native":
        vars(round_trip)["_spin"] = 10.0
    recorded.replay()
    out.numpy()

    def waits_longer_than_it_reads() -> bool:
        recorded.replay()
        start = time.perf_counter()
        round_trip.wait()
        waited = time.perf_counter()
        out.numpy()
        return waited - start > time.perf_counter() - waited

    assert any(waits_longer_than_it_reads() for _ in range(5))
