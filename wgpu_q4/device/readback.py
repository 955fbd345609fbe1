"""How bytes come back from a device: through the public API, or past it where that has been tried.

`PublicReadback` is WebGPU's way, ``map_sync``, and works with every implementation.  wgpu-py
answers it from a polling thread, after an empty submission of its own; handing the interpreter to
that thread and back costs more than a small kernel takes.  `PolledReadback` maps the same buffer
with wgpu-native's C functions and polls the device on the calling thread.  These functions are not
part of wgpu-py's promised API, so each device runs them once on known bytes before they are used,
and ``wgpu-q4 info`` says which way was chosen, and why not the other.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.implementation import implementation_of
from wgpu_q4.errors import DeviceError

ENVIRONMENT_VARIABLE = "WGPU_Q4_READBACK"
WAYS = ("polled", "public")

PROBE_BYTES = 64
_KNOWN_BYTES = np.arange(1, PROBE_BYTES + 1, dtype=np.uint8)


class Readback(Protocol):
    """A way to read a buffer."""

    name: str
    reason: str
    """Why this way and not a faster one; empty for the fastest."""

    def __call__(self, staging: Any, out: NDArray[np.uint8]) -> None:
        """Wait for what was submitted, then fill ``out`` from the start of ``staging``.

        Args:
            staging: an unmapped buffer that may be mapped for reading.
            out: C-contiguous bytes, at most as many as ``staging`` has, at least one.

        Raises:
            DeviceError: the buffer cannot be mapped, as when its device is lost.
        """
        ...


class PublicReadback:
    """Through ``map_sync`` and ``read_mapped``."""

    name = "public"

    def __init__(self, device: Any, reason: str = "") -> None:
        self.reason = reason
        self._read = int(implementation_of(device).MapMode.READ)

    def __call__(self, staging: Any, out: NDArray[np.uint8]) -> None:
        """See `Readback`."""
        mapped_bytes = out.nbytes + -out.nbytes % 4
        try:
            staging.map_sync(self._read, 0, mapped_bytes)
        except RuntimeError as error:
            raise DeviceError(f"the device did not hand a result back: {error}") from error
        try:
            view = np.frombuffer(staging.read_mapped(0, mapped_bytes, copy=False), np.uint8)
            out[:] = view[: out.nbytes]
            del view  # the buffer lets go of the memory only when nothing looks at it
        finally:
            staging.unmap()


class PolledReadback:
    """Through wgpu-native's C functions, which wgpu-py keeps in ``wgpu.backends.wgpu_native``.

    One read at a time, which is what `Context.lock` sees to.
    """

    name = "polled"
    reason = ""

    def __init__(self, device: Any, probe: Any) -> None:
        """Find the functions and try them on ``probe``, for which see `choose_readback`.

        Raises:
            DeviceError: they are not there, or do not do what is expected; says which.
        """
        if implementation_of(device).__name__ != "wgpu":
            raise DeviceError("only wgpu-native has the functions to poll")
        try:
            native = implementation_of(device).backends.wgpu_native
            ffi, lib = native.ffi, native.lib
            self._ffi, self._lib, self._device = ffi, lib, device
            self._poll, self._map = lib.wgpuDevicePoll, lib.wgpuBufferMapAsync
            self._range, self._unmap = lib.wgpuBufferGetMappedRange, lib.wgpuBufferUnmap
            self._success = lib.WGPUMapAsyncStatus_Success
            self._callback, self._answers = _map_callback(ffi)
            self._calls = 0
            self._info = ffi.new("WGPUBufferMapCallbackInfo *")
            self._info.mode = lib.WGPUCallbackMode_AllowProcessEvents
            self._info.callback = self._callback
            self._try_out(device, probe)
        except Exception as error:  # private parts may fail in any way when wgpu-py changes
            raise DeviceError(f"{type(error).__name__}: {error}") from error

    def __call__(self, staging: Any, out: NDArray[np.uint8]) -> None:
        """See `Readback`."""
        buffer, nbytes = staging._internal, out.nbytes
        # A call that was interrupted is answered all the same, perhaps during the next one.
        self._calls += 1
        self._answers.clear()
        self._info.userdata1 = self._ffi.cast("void *", self._calls)
        self._map(buffer, self._lib.WGPUMapMode_Read, 0, nbytes + -nbytes % 4, self._info[0])
        while self._calls not in self._answers:
            # Returns when the device has nothing left to do.  The callback may then still be on
            # its way, in wgpu-py's own thread: that polls too when the user waits for something.
            self._poll(self._device._internal, True, self._ffi.NULL)
        status, message = self._answers.pop(self._calls)
        if status != self._success:
            raise DeviceError(f"the device did not hand a result back: {message}")
        try:
            mapped = self._range(buffer, 0, nbytes + -nbytes % 4)
            if mapped == self._ffi.NULL:
                raise DeviceError("the device handed back no memory")
            self._ffi.memmove(self._ffi.from_buffer(out), mapped, nbytes)
        finally:
            self._unmap(buffer)

    def _try_out(self, device: Any, buffer: Any) -> None:
        found = np.zeros_like(_KNOWN_BYTES)
        for known in (_KNOWN_BYTES, _KNOWN_BYTES[::-1].copy()):
            device.queue.write_buffer(buffer, 0, known)
            device.queue.submit([])
            self(buffer, found)
            if not np.array_equal(found, known):
                raise DeviceError(f"{PROBE_BYTES} known bytes came back changed")


def _map_callback(ffi: Any) -> tuple[Any, dict[int, tuple[int, str]]]:
    """A C callback, and the dict that it tells: the number of a call → status and message.

    The callback refers to the dict only: one that led back to the device would keep it for ever.
    """
    answers: dict[int, tuple[int, str]] = {}

    @ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator]
    def mapped(status: int, message: Any, call: Any, _unused: Any) -> None:
        text = ""
        if message.data != ffi.NULL:
            # Ends at a zero byte, or after that many: all bits set mean that nobody counted.
            text = ffi.string(message.data, min(message.length, 1 << 12)).decode(errors="replace")
        answers[int(ffi.cast("uintptr_t", call))] = status, text

    return mapped, answers


def choose_readback(device: Any, probe: Any, way: str | None = None) -> Readback:
    """The fastest way that works on ``device``.

    Args:
        device: a ``GPUDevice``.
        probe: a buffer of `PROBE_BYTES` to try it on, usable to copy to and to map for reading.
        way: ``"polled"`` or ``"public"``; by default ``WGPU_Q4_READBACK``, else whichever works.

    Raises:
        DeviceError: no such way, or the one that was asked for does not work here.
    """
    way = way if way is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if way is not None and way not in WAYS:
        raise DeviceError(f"{ENVIRONMENT_VARIABLE} must be {' or '.join(WAYS)}, not {way!r}")
    if way == "public":
        return PublicReadback(device, "asked for")
    try:
        return PolledReadback(device, probe)
    except DeviceError as error:
        if way is not None:
            raise DeviceError(f"this device cannot be polled: {error}") from error
        return PublicReadback(device, str(error))
