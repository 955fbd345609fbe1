"""To a device and back: write its input, record a compute pass, run it, bring the result here.

`PublicRoundTrip` does so as WebGPU's specification says, and works with every implementation.
`NativeRoundTrip` calls the same functions of wgpu-native without wgpu-py in between, which makes a
Python object and several dictionaries for each, maps a buffer only after an empty submission, and
waits for that on another thread: in a decode step this costs more time than the matrix product.

These functions are not part of what wgpu-py promises.  So each device runs them once on known bytes
before they are used, ``wgpu-q4 info`` says which way was chosen, and why not the other, and
``WGPU_Q4_ROUND_TRIP`` chooses one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.adapter import is_software
from wgpu_q4.device.implementation import implementation_of
from wgpu_q4.errors import DeviceError
from wgpu_q4.format.parallel import copy_bytes

T = TypeVar("T")

ENVIRONMENT_VARIABLE = "WGPU_Q4_ROUND_TRIP"
WAYS = ("native", "public")

PROBE_BYTES = 64
_KNOWN_BYTES = np.arange(1, PROBE_BYTES + 1, dtype=np.uint8)

_SPIN_SECONDS = 0.002
"""How long a GPU's result is asked for before it is waited for.  To be woken costs a thread 50 µs
on an H200's host, where a decode step takes 200."""


class ComputePass(Protocol):
    """The part of a ``GPUComputePassEncoder`` that a dispatch needs."""

    def set_pipeline(self, pipeline: Any) -> None:
        """Choose the kernel."""
        ...

    def set_bind_group(self, index: int, bind_group: Any) -> None:
        """Bind its resources."""
        ...

    def dispatch_workgroups(self, x: int, y: int, z: int) -> None:
        """Append a dispatch."""
        ...


Record = Callable[[ComputePass], Any]
"""Appends dispatches to a pass and returns the buffer from whose start the result is read."""

Stage = Callable[[int], Any]
"""Gives an unmapped buffer of at least so many bytes to copy a result to, and to map."""


class RoundTrip(Protocol):
    """A way to use a device.  One call at a time, which is what `Context.lock` sees to.

    Attributes:
        name: one of `WAYS`.
        reason: why it is not the fastest; empty if it is.
    """

    name: str
    reason: str

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """Queue ``data``, C-contiguous and a multiple of 4 bytes, for the start of ``buffer``."""
        ...

    def run(self, record: Record, stage: Stage, out: NDArray[np.uint8]) -> None:
        """Run one compute pass and `read` what it left: there, or in a copy if it cannot be."""
        ...

    def read(self, staging: Any, out: NDArray[np.uint8]) -> None:
        """Wait for what was submitted, then fill ``out`` from the start of ``staging``.

        Args:
            staging: an unmapped buffer that may be mapped for reading.
            out: C-contiguous bytes, at most as many as ``staging`` has, at least one.

        Raises:
            DeviceError: the buffer cannot be mapped, as when its device is lost.
        """
        ...


class PublicRoundTrip:
    """Through the API that is specified."""

    name = "public"

    def __init__(self, device: Any, reason: str = "") -> None:
        self.reason = reason
        self._device = device
        self._read_mode = int(implementation_of(device).MapMode.READ)
        self._can_be_read = int(implementation_of(device).BufferUsage.MAP_READ)

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """See `RoundTrip`."""
        self._device.queue.write_buffer(buffer, 0, data)

    def run(self, record: Record, stage: Stage, out: NDArray[np.uint8]) -> None:
        """See `RoundTrip`."""
        encoder = self._device.create_command_encoder()
        compute_pass = encoder.begin_compute_pass()
        source = record(compute_pass)
        compute_pass.end()
        if not source.usage & self._can_be_read:
            staging = stage(_padded(out.nbytes))
            encoder.copy_buffer_to_buffer(source, 0, staging, 0, _padded(out.nbytes))
            source = staging
        self._device.queue.submit([encoder.finish()])
        self.read(source, out)

    def read(self, staging: Any, out: NDArray[np.uint8]) -> None:
        """See `RoundTrip`."""
        try:
            staging.map_sync(self._read_mode, 0, _padded(out.nbytes))
        except RuntimeError as error:
            raise _not_back(str(error)) from error
        try:
            mapped = staging.read_mapped(0, _padded(out.nbytes), copy=False)
            copy_bytes(np.frombuffer(mapped, np.uint8, out.nbytes), out)
        finally:
            staging.unmap()


class NativeRoundTrip:
    """Through wgpu-native's C functions, which wgpu-py keeps in ``wgpu.backends.wgpu_native``."""

    name = "native"
    reason = ""

    def __init__(self, device: Any, source: Any, staging: Any) -> None:
        """Find the functions and try them on two buffers, for which see `choose_round_trip`.

        Raises:
            DeviceError: they are not there, or do not do what is expected; says which.
        """
        module = implementation_of(device)
        if module.__name__ != "wgpu":
            raise DeviceError(f"{module.__name__} is not wgpu-native")
        try:
            native = module.backends.wgpu_native
            ffi = native.ffi
            self._ffi, self._lib, self._device = ffi, native.lib, device
            self._queue = device.queue._internal
            self._can_be_read = int(module.BufferUsage.MAP_READ)
            self._errors, self._error = native._api.error_handler, module.GPUError
            self._answers: dict[int, tuple[int, str]] = {}
            self._interrupts: list[BaseException] = []
            self._mapped = _map_callback(ffi, self._answers, self._interrupts)
            self._calls = 0
            self._encoder_is = ffi.new("WGPUCommandEncoderDescriptor *")
            self._pass_is = ffi.new("WGPUComputePassDescriptor *")
            self._commands_are = ffi.new("WGPUCommandBufferDescriptor *")
            self._commands = ffi.new("WGPUCommandBuffer[1]")
            self._map_is = ffi.new("WGPUBufferMapCallbackInfo *")
            self._map_is.mode = self._lib.WGPUCallbackMode_AllowProcessEvents
            self._map_is.callback = self._mapped
            # A driver that runs on the processor needs the cores to get anything done.
            self._spin = 0.0 if is_software(device.adapter) else _SPIN_SECONDS
            missing = [name for name in _FUNCTIONS if not callable(getattr(self._lib, name, None))]
            if missing:
                raise DeviceError(f"wgpu-native has no {' and no '.join(missing)}")
            self._try_out(source, staging)
        except Exception as error:  # private parts may fail in any way when wgpu-py changes
            raise DeviceError(f"{type(error).__name__}: {error}") from error

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """See `RoundTrip`."""
        lib, pointer = self._lib, self._ffi.from_buffer(data)
        self._checked(
            lambda: lib.wgpuQueueWriteBuffer(self._queue, buffer._internal, 0, pointer, data.nbytes)
        )

    def run(self, record: Record, stage: Stage, out: NDArray[np.uint8]) -> None:
        """See `RoundTrip`."""
        lib = self._lib
        self._commands[0] = self._ffi.NULL
        try:
            left = self._checked(lambda: self._record(record, stage, _padded(out.nbytes)))
            self._checked(lambda: lib.wgpuQueueSubmit(self._queue, 1, self._commands))
        finally:
            if self._commands[0] != self._ffi.NULL:
                lib.wgpuCommandBufferRelease(self._commands[0])
        self.read(left, out)

    def _record(self, record: Record, stage: Stage, nbytes: int) -> Any:
        """Make the commands that run the pass; returns the buffer to map for its result."""
        lib = self._lib
        encoder = lib.wgpuDeviceCreateCommandEncoder(self._device._internal, self._encoder_is)
        try:
            compute_pass = lib.wgpuCommandEncoderBeginComputePass(encoder, self._pass_is)
            try:
                source = record(_NativePass(lib, self._ffi.NULL, compute_pass))
                lib.wgpuComputePassEncoderEnd(compute_pass)
            finally:
                lib.wgpuComputePassEncoderRelease(compute_pass)
            if not source.usage & self._can_be_read:
                staging = stage(nbytes)
                lib.wgpuCommandEncoderCopyBufferToBuffer(
                    encoder, source._internal, 0, staging._internal, 0, nbytes
                )
                source = staging
            self._commands[0] = lib.wgpuCommandEncoderFinish(encoder, self._commands_are)
            return source
        finally:
            lib.wgpuCommandEncoderRelease(encoder)

    def read(self, staging: Any, out: NDArray[np.uint8]) -> None:
        """See `RoundTrip`."""
        lib, device, nothing = self._lib, self._device._internal, self._ffi.NULL
        buffer, nbytes = staging._internal, _padded(out.nbytes)
        # A call that was interrupted is answered all the same, perhaps during the next one.
        self._calls += 1
        self._answers.clear()
        self._map_is.userdata1 = self._ffi.cast("void *", self._calls)
        lib.wgpuBufferMapAsync(buffer, lib.WGPUMapMode_Read, 0, nbytes, self._map_is[0])
        patience = time.perf_counter() + self._spin
        while self._calls not in self._answers:
            # To wait returns when the device has nothing left to do.  The callback may then still
            # be on its way in wgpu-py's own thread, which polls when the user waits for something.
            wait = time.perf_counter() >= patience
            lib.wgpuDevicePoll(device, wait, nothing)
            if self._interrupts:
                raise self._interrupts.pop()
        status, message = self._answers.pop(self._calls)
        if status != lib.WGPUMapAsyncStatus_Success:
            raise _not_back(message)
        try:
            mapped = lib.wgpuBufferGetMappedRange(buffer, 0, nbytes)
            if mapped == nothing:
                raise _not_back("its memory has no address")
            view = np.frombuffer(self._ffi.buffer(mapped, nbytes), np.uint8, out.nbytes)
            copy_bytes(view, out)
        finally:
            lib.wgpuBufferUnmap(buffer)

    def _checked(self, calls: Callable[[], T]) -> T:
        """What ``calls`` returns; the last error that wgpu-native told of meanwhile is raised.

        wgpu-py does so for each call.  What follows an error within ``calls`` must be harmless.
        """
        self._errors.capture(_NAME)
        try:
            result = calls()
        finally:
            problem = self._errors.release(_NAME)
        if problem is not None:
            raise self._error(problem[1])
        return result

    def _try_out(self, source: Any, staging: Any) -> None:
        found = np.zeros_like(_KNOWN_BYTES)
        for known in (_KNOWN_BYTES, _KNOWN_BYTES[::-1].copy()):
            self.write(source, known)
            self.run(lambda _pass: source, lambda _nbytes: staging, found)
            if not np.array_equal(found, known):
                raise DeviceError(f"{PROBE_BYTES} known bytes came back changed")


_FUNCTIONS = (
    "wgpuBufferGetMappedRange",
    "wgpuBufferMapAsync",
    "wgpuBufferUnmap",
    "wgpuCommandBufferRelease",
    "wgpuCommandEncoderBeginComputePass",
    "wgpuCommandEncoderCopyBufferToBuffer",
    "wgpuCommandEncoderFinish",
    "wgpuCommandEncoderRelease",
    "wgpuComputePassEncoderDispatchWorkgroups",
    "wgpuComputePassEncoderEnd",
    "wgpuComputePassEncoderRelease",
    "wgpuComputePassEncoderSetBindGroup",
    "wgpuComputePassEncoderSetPipeline",
    "wgpuDeviceCreateCommandEncoder",
    "wgpuDevicePoll",
    "wgpuQueueSubmit",
    "wgpuQueueWriteBuffer",
)
_NAME = "wgpu_q4"
"""Under which wgpu-py collects the errors of the calls made here."""


class _NativePass:
    """A `ComputePass`."""

    def __init__(self, lib: Any, nothing: Any, compute_pass: Any) -> None:
        self._lib, self._nothing, self._pass = lib, nothing, compute_pass

    def set_pipeline(self, pipeline: Any) -> None:
        self._lib.wgpuComputePassEncoderSetPipeline(self._pass, pipeline._internal)

    def set_bind_group(self, index: int, bind_group: Any) -> None:
        self._lib.wgpuComputePassEncoderSetBindGroup(
            self._pass, index, bind_group._internal, 0, self._nothing
        )

    def dispatch_workgroups(self, x: int, y: int, z: int) -> None:
        self._lib.wgpuComputePassEncoderDispatchWorkgroups(self._pass, x, y, z)


def _map_callback(
    ffi: Any, answers: dict[int, tuple[int, str]], interrupts: list[BaseException]
) -> Any:
    """A C callback that tells ``answers``: the number of a call → status and message.

    Control-C may strike while it runs, where nothing can be raised: ``interrupts`` is told instead.
    It refers to these two only: a way from it to the device would keep that for ever.
    """

    def interrupted(_kind: object, error: BaseException, _trace: object) -> None:
        interrupts.append(error)

    @ffi.callback(  # type: ignore[untyped-decorator]
        "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", onerror=interrupted
    )
    def mapped(status: int, message: Any, call: Any, _unused: Any) -> None:
        text = ""
        if message.data != ffi.NULL:
            # Ends at a zero byte, or after that many: all bits set mean that nobody counted.
            text = ffi.string(message.data, min(message.length, 1 << 12)).decode(errors="replace")
        answers[int(ffi.cast("uintptr_t", call))] = status, text

    return mapped


def _padded(nbytes: int) -> int:
    return nbytes + -nbytes % 4


def _not_back(message: str) -> DeviceError:
    return DeviceError(f"the device did not hand a result back: {message}")


def choose_round_trip(device: Any, source: Any, staging: Any, way: str | None = None) -> RoundTrip:
    """The fastest way that works on ``device``.

    Args:
        device: a ``GPUDevice``.
        source: a buffer of `PROBE_BYTES` to try it on, which can be copied to and from.
        staging: another, which can be copied to and mapped for reading.
        way: ``"native"`` or ``"public"``; by default ``WGPU_Q4_ROUND_TRIP``, else what works.

    Raises:
        DeviceError: no such way, or the one that was asked for does not work here.
    """
    way = way if way is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if way is not None and way not in WAYS:
        raise DeviceError(f"{ENVIRONMENT_VARIABLE} must be {' or '.join(WAYS)}, not {way!r}")
    if way == "public":
        return PublicRoundTrip(device, "it was asked for")
    try:
        return NativeRoundTrip(device, source, staging)
    except DeviceError as error:
        if way is not None:
            raise DeviceError(f"the native way does not work on this device: {error}") from error
        return PublicRoundTrip(device, str(error))
