"""Arrays that stay on a device: what they take, what they give back, and when they go."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cases import assert_same_bits, limited_context
from tests.recorder import Recorder
from wgpu_q4 import DeviceArray, DeviceError, DeviceLimitError, to_device
from wgpu_q4.device import context_for


def buffer_on(device: Any, nbytes: int, *usages: str) -> Any:
    """A buffer of the user's."""
    usage = context_for(device).usage(*usages)
    return device.create_buffer(size=nbytes, usage=usage)


WHOLE = ("STORAGE", "COPY_SRC", "COPY_DST")


@pytest.mark.parametrize(
    "values",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7.5,
        np.array([[1.5, -0.0, 65504]], np.float16),
        np.arange(5, dtype=np.int32)[::2],
        np.array([2**32 - 1, 0], np.uint32),
        np.zeros((3, 0, 2), np.float16),
        np.array(7, np.int32),
    ],
    ids=lambda values: f"{values.dtype}{list(values.shape)}",
)
def test_there_and_back(each_way: Any, values: Any) -> None:
    array = to_device(values, each_way)
    assert (array.shape, array.dtype, array.nbytes) == (values.shape, values.dtype, values.nbytes)
    assert (array.size, array.ndim) == (values.size, values.ndim)
    assert array.device is each_way
    assert_same_bits(array.numpy(), values)
    assert_same_bits(np.asarray(array), values)
    assert_same_bits(np.asarray(array, np.float64), values.astype(np.float64))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.array([3, -(2**31)], np.int64), np.int32),
        (np.array([3], np.uint8), np.int32),
        ([[1, 2], [3, 4]], np.int32),
        ([0.5, 2.0], np.float32),
        (np.array([1.5], ">f4").astype("<f4"), np.float32),
    ],
    ids=str,
)
def test_dtypes_that_a_device_does_not_keep(device: Any, given: Any, kept: Any) -> None:
    assert_same_bits(to_device(given, device).numpy(), np.asarray(given).astype(kept))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (np.zeros(3), TypeError, r"float64: convert with .astype\(np.float32\)"),
        (np.array([2**31]), ValueError, "integers in -2147483648..2147483647"),
        (np.array([-(2**31) - 1]), ValueError, "those of int32"),
        (np.array([True]), TypeError, "not bool"),
        ("rows", TypeError, "must be a numpy array"),
    ],
    ids=str,
)
def test_what_is_no_device_array(device: Any, given: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        to_device(given, device)


def test_empty_holds_zeros(own_device: Any) -> None:
    assert_same_bits(
        DeviceArray.empty((3, 5), np.float16, own_device).numpy(), np.zeros((3, 5), np.float16)
    )
    assert_same_bits(DeviceArray.empty(2, "int32", own_device).numpy(), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="float32, float16, int32, uint32"):
        DeviceArray.empty(3, np.float64, own_device)
    with pytest.raises(ValueError, match="no negative length"):
        DeviceArray.empty((3, -1), device=own_device)
    with pytest.raises(TypeError, match="lengths of dimensions"):
        DeviceArray.empty((3, 1.5), device=own_device)  # type: ignore[arg-type]


def test_a_large_array_goes_in_pieces(device: Any) -> None:
    values = np.random.default_rng(0).integers(-(2**31), 2**31, (5 << 20) + 3, np.int32)
    assert_same_bits(to_device(values, device).numpy(), values)


def test_a_binding_has_a_limit() -> None:
    context = limited_context({"max-storage-buffer-binding-size": 4096, "max-buffer-size": 8192})
    to_device(np.zeros(1024, np.float32), context.device)
    makes: list[Callable[[], object]] = [
        lambda: to_device(np.zeros(1025, np.float32), context.device),
        lambda: DeviceArray.empty((5, 1025), "float16", context.device),
        lambda: DeviceArray.wrap(buffer_on(context.device, 8192, "STORAGE"), 1025),
    ]
    for make in makes:
        with pytest.raises(DeviceLimitError, match=r"bytes in one binding; .* allows 4,096"):
            make()


def test_a_buffer_of_the_caller(each_way: Any) -> None:
    """The array is the buffer's second half; its other bytes are left alone."""
    buffer = buffer_on(each_way, 1024, *WHOLE)
    before = np.arange(256, dtype=np.float32)
    each_way.queue.write_buffer(buffer, 0, before)
    array = DeviceArray.wrap(buffer, (2, 64), offset=512)
    assert array.buffer is buffer
    assert array.binding == {"buffer": buffer, "offset": 512, "size": 512}
    assert_same_bits(array.numpy(), before[128:].reshape(2, 64))
    values = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    array.write(values)
    whole = np.frombuffer(each_way.queue.read_buffer(buffer), np.float32)
    assert_same_bits(whole[:128].copy(), before[:128])
    assert_same_bits(whole[128:].reshape(2, 64).copy(), values)
    array.free()
    with pytest.raises(DeviceError, match="was freed"):
        array.numpy()
    assert bytes(each_way.queue.read_buffer(buffer, 0, 4)) == before[:1].tobytes(), "still there"


def test_a_buffer_that_does_not_fit(own_device: Any, here: Any) -> None:
    buffer = buffer_on(own_device, 1024, *WHOLE)
    step = own_device.limits["min-storage-buffer-offset-alignment"]
    for arguments, error, words in (
        ({"shape": 257}, ValueError, r"takes 1,028 bytes from 0 on, and buffer has 1,024"),
        ({"shape": 256, "offset": step}, ValueError, "and buffer has 1,024"),
        ({"shape": 1, "offset": step // 2}, ValueError, rf"a multiple of {step} .*, not"),
        ({"shape": 1, "offset": -step}, ValueError, "offset must be"),
        ({"shape": 1, "dtype": "float64"}, ValueError, "dtype must be one of"),
        ({"shape": "3"}, TypeError, "shape must be"),
    ):
        with pytest.raises(error, match=words):
            DeviceArray.wrap(buffer, **arguments)
    with pytest.raises(TypeError, match="buffer must be a GPUBuffer, not ndarray"):
        DeviceArray.wrap(np.zeros(4), 4)
    with pytest.raises(TypeError, match="buffer must be a GPUBuffer, not GPUCommandEncoder"):
        DeviceArray.wrap(own_device.create_command_encoder(), 4)
    with pytest.raises(ValueError, match="usage STORAGE"):
        DeviceArray.wrap(buffer_on(own_device, 16, "COPY_DST"), 4)
    other = here.request_device_sync(required_limits=dict(here.limits))
    with pytest.raises(DeviceError, match="another device"):
        DeviceArray.wrap(buffer, 4, device=other)
    assert DeviceArray.wrap(buffer, 4, device=own_device).device is own_device


def test_a_buffer_that_the_host_may_not_touch(own_device: Any) -> None:
    array = DeviceArray.wrap(buffer_on(own_device, 16, "STORAGE"), 4)
    with pytest.raises(DeviceError, match=r"read by the host: .* without the usage COPY_SRC"):
        array.numpy()
    with pytest.raises(DeviceError, match=r"written by the host: .* without the usage COPY_DST"):
        array.write(np.zeros(4, np.float32))


def test_write(own_device: Any) -> None:
    ids = to_device(np.array([1, 2, 3]), own_device)
    ids.write([4, 5, 6])
    assert_same_bits(ids.numpy(), np.array([4, 5, 6], np.int32))
    unsigned = to_device(np.array([1, 2], np.uint32), own_device)
    unsigned.write(np.array([2**32 - 1, 7], np.int64))
    assert_same_bits(unsigned.numpy(), np.array([2**32 - 1, 7], np.uint32))
    for values, error, words in (
        (np.zeros(3, np.float32), TypeError, "values must be int32, as the array is, not float32"),
        ([1, 2], ValueError, r"shape \[3\], as the array does, not \[2\]"),
        ([1, 2, 2**31], ValueError, "values must hold integers in"),
    ):
        with pytest.raises(error, match=words):
            ids.write(values)
    assert_same_bits(ids.numpy(), np.array([4, 5, 6], np.int32))


def test_reshape(own_device: Any) -> None:
    values = np.arange(24, dtype=np.int32)
    array = to_device(values, own_device)
    for shape in ((24,), (2, 3, 4), (-1, 8), (2, -1, 2), (1, 24)):
        seen = array.reshape(*shape)
        assert seen.buffer is array.buffer
        assert_same_bits(seen.numpy(), values.reshape(shape))
    assert array.reshape((4, 6)).shape == (4, 6)
    assert len(array.reshape(4, 6)) == 4
    for wrong in ((5, 5), (-1, 7), (-1, -1, 24), (-2, -12)):
        with pytest.raises(ValueError, match="has no shape"):
            array.reshape(*wrong)
    one = to_device(np.int32(3), own_device)
    assert one.reshape(1).shape == (1,)
    assert one.reshape(()).shape == ()
    with pytest.raises(TypeError, match="without dimensions"):
        len(one)


def test_numpy_gets_a_copy(own_device: Any) -> None:
    array = to_device(np.zeros(3, np.float32), own_device)
    with pytest.raises(ValueError, match="leave copy out"):
        np.array(array, copy=False)
    assert repr(array).startswith("DeviceArray([3], float32, ")


def test_an_array_goes_with_the_object(own_device: Any) -> None:
    recorder = Recorder(own_device)
    array = to_device(np.zeros(1000, np.float32), own_device)
    view = array.reshape(10, 100)
    del array
    assert recorder.alive().count(4000) == 1
    del view
    assert recorder.alive().count(4000) == 0
    buffer = buffer_on(own_device, 2000, *WHOLE)
    DeviceArray.wrap(buffer, 500).numpy()
    assert recorder.alive().count(2000) == 1, "that of the caller stays"


def test_free(own_device: Any) -> None:
    array = to_device(np.zeros(1000, np.float32), own_device)
    view = array.reshape(10, 100)
    array.free()
    array.free()
    zeros = np.zeros((10, 100), np.float32)
    uses: list[Callable[[], object]] = [view.numpy, array.wait, lambda: view.write(zeros)]
    for use in uses:
        with pytest.raises(DeviceError, match="this device array was freed"):
            use()
    assert "freed" in repr(view)


def test_a_lost_device(own_device: Any) -> None:
    array = to_device(np.zeros(4, np.float32), own_device)
    own_device.destroy()
    uses: list[Callable[[], object]] = [
        array.numpy,
        array.wait,
        lambda: array.write(np.ones(4, np.float32)),
        lambda: to_device([1.0], own_device),
        lambda: DeviceArray.empty(3, device=own_device),
    ]
    for use in uses:
        with pytest.raises(DeviceError, match="is lost"):
            use()


def test_wait(each_way: Any) -> None:
    array = to_device(np.arange(3), each_way)
    assert array.wait() is array


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_python_does_not_copy_it(device: Any, copied: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"lies on a device. Use array.numpy\(\)"):
        copied(to_device([1, 2], device))


def test_its_buffer_is_destroyed(each_way: Any) -> None:
    """The array counts as freed, and the process lives."""
    array = to_device([1, 2], each_way)
    array.buffer.destroy()
    uses: list[Callable[[], object]] = [array.numpy, array.wait, lambda: array.write([3, 4])]
    for use in uses:
        with pytest.raises(DeviceError, match="was freed"):
            use()


def test_its_buffer_is_mapped(each_way: Any) -> None:
    """wgpu-native would abort the process."""
    usage = context_for(each_way).usage(*WHOLE)
    buffer = each_way.create_buffer(size=8, usage=usage, mapped_at_creation=True)
    array = DeviceArray.wrap(buffer, 2, "int32")
    uses: list[Callable[[], object]] = [array.numpy, array.wait, lambda: array.write([3, 4])]
    for use in uses:
        with pytest.raises(DeviceError, match=r"is mapped: call its unmap\(\) first"):
            use()
    array.buffer.unmap()
    array.write([3, 4])
    assert_same_bits(array.numpy(), np.array([3, 4], np.int32))
