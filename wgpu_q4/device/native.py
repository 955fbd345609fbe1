"""The calls of wgpu-native's own functions: wgpu-py does not wrap them, or wraps them slowly.

wgpu-py promises nothing about the attributes that this module reads (``device._internal``,
``wgpu.backends.wgpu_native``), so callers can do without it: `wgpu_q4.device.roundtrip` tries the
round trip out on each device and has another one, and `why_checks_stay` tells when kernels must
keep their checks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.adapter import is_software
from wgpu_q4.device.commands import MOST_IN_FLIGHT
from wgpu_q4.device.implementation import implementation_of
from wgpu_q4.device.native_commands import encode_commands
from wgpu_q4.errors import DeviceError
from wgpu_q4.format.parallel import Reordered, copy_bytes

if TYPE_CHECKING:
    from wgpu_q4.device.commands import Commands
    from wgpu_q4.device.pipelines import Step

T = TypeVar("T")

CHECKS_VARIABLE = "WGPU_Q4_SHADER_CHECKS"

_SPIN_SECONDS = 0.002
"""How long a GPU's result is polled for before the thread sleeps.  To be woken costs a thread 50 µs
on an H200's host, where a decode step takes 200."""

_NAP_SECONDS = 0.0001
"""How long the thread sleeps between two polls for a result that was not submitted last.  A poll
that waits would wait for the rest too, and the device has enough to do until then."""


# Kernels without bounds checks.
#
# wgpu-native clamps each index in a shader to what is bound, and counts the turns of each loop.  On
# an H200 that costs a matrix product 3 to 9 % (see ``benchmarks/``).  A kernel runs without if
#
# * each WGSL piece that reads or writes memory says under ``In range:`` why its indices stay within
#   the shape V, K, G and the sizes M, M' that the host writes (a test finds a piece that does not);
# * its loops are bounded by the same numbers;
# * `wgpu_q4.kernels.Dispatch.needs` says how many bytes each buffer must have for that shape, and
#   `wgpu_q4.device.pipelines` compares them with the buffers bound, for every step.
#
# The embedding keeps its checks: they cost it nothing, and its indices are data.  So does every
# kernel that reads a texture.  Dawn has no switch for one kernel: where its matrix units are used,
# a whole device goes without (`wgpu_q4.device.dawn`).


def why_checks_stay(device: Any) -> str:
    """Return the reason why shader checks must stay on for ``device``.

    The result is empty if they can be turned off for single kernels.
    """
    if os.environ.get(CHECKS_VARIABLE, "0") not in ("", "0"):
        return f"{CHECKS_VARIABLE} is set"
    module = implementation_of(device)
    if module.__name__ != "wgpu":
        return f"{module.__name__} has no switch for a single kernel"
    native = getattr(getattr(module, "backends", None), "wgpu_native", None)
    if not hasattr(getattr(native, "lib", None), "wgpuDeviceCreateShaderModuleTrusted"):
        return "this wgpu-native has no wgpuDeviceCreateShaderModuleTrusted"
    return ""


def create_unchecked_module(device: Any, label: str, code: str) -> Any:
    """Return a ``GPUShaderModule`` of WGSL that runs without bounds checks.

    The text is first compiled with checks, so that an error in it is reported as for any module.

    Args:
        device: one for which `why_checks_stay` knows no reason.
        label: the module's name in messages.
        code: the WGSL.
    """
    native = implementation_of(device).backends.wgpu_native
    ffi, lib = native.ffi, native.lib
    checked = device.create_shader_module(label=label, code=code)
    text, name = code.encode(), label.encode()
    code_bytes, label_bytes = ffi.new("char[]", text), ffi.new("char[]", name)
    source = ffi.new("WGPUShaderSourceWGSL *")
    source.chain.sType = lib.WGPUSType_ShaderSourceWGSL
    source.code.data, source.code.length = code_bytes, len(text)
    descriptor = ffi.new("WGPUShaderModuleDescriptor *")
    descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", source)
    descriptor.label.data, descriptor.label.length = label_bytes, len(name)
    no_checks = 0  # WGPUShaderRuntimeChecks_None
    handle = lib.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, no_checks)
    return type(checked)(label, handle, device)


def timestamp_seconds(device: Any) -> float:
    """Return the seconds for each unit of a timestamp that a device of wgpu resolves.

    WebGPU says nanoseconds; wgpu-native resolves to ticks of the queue.
    """
    lib = implementation_of(device).backends.wgpu_native.lib
    return float(lib.wgpuQueueGetTimestampPeriod(device.queue._internal)) * 1e-9


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
"""The name under which wgpu-py collects the errors of the calls made here."""


class NativeRoundTrip:
    """A `wgpu_q4.device.roundtrip.RoundTrip` through wgpu-native's C functions."""

    name = "native"
    reason = ""

    def __init__(self, device: Any) -> None:
        """Find the functions.

        Raises:
            DeviceError: another implementation, or a function is missing.
            Exception: whatever is raised where wgpu-py has changed.
        """
        module = implementation_of(device)
        if module.__name__ != "wgpu":
            raise DeviceError(f"{module.__name__} is not wgpu-native")
        native = module.backends.wgpu_native
        self._ffi, self._lib, self._device = native.ffi, native.lib, device
        missing = [name for name in _FUNCTIONS if not callable(getattr(self._lib, name, None))]
        if missing:
            raise DeviceError(f"wgpu-native has no {' and no '.join(missing)}")
        ffi = self._ffi
        self._queue = device.queue._internal
        self._errors, self._error = native._api.error_handler, module.GPUError
        self._encoder_is = ffi.new("WGPUCommandEncoderDescriptor *")
        self._pass_is = ffi.new("WGPUComputePassDescriptor *")
        self._commands_are = ffi.new("WGPUCommandBufferDescriptor *")
        self._commands = ffi.new("WGPUCommandBuffer[1]")
        self._calls = 0
        self._answers: dict[int, tuple[int, str]] = {}
        self._interrupts: list[BaseException] = []
        self._mapped = _map_callback(ffi, self._answers, self._interrupts)
        self._map_is = ffi.new("WGPUBufferMapCallbackInfo *")
        self._map_is.mode = self._lib.WGPUCallbackMode_AllowProcessEvents
        self._map_is.callback = self._mapped
        self._asked, self._done = 0, [0]
        self._done_called = _done_callback(ffi, self._done, self._interrupts)
        self._done_is = ffi.new("WGPUQueueWorkDoneCallbackInfo *")
        self._done_is.mode = self._lib.WGPUCallbackMode_AllowProcessEvents
        self._done_is.callback = self._done_called
        self._in_flight = 0
        # A driver that runs on the processor needs the cores to get anything done.
        self._spin = 0.0 if is_software(device.adapter) else _SPIN_SECONDS

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """See `wgpu_q4.device.roundtrip.RoundTrip`."""
        pointer, write = self._ffi.from_buffer(data), self._lib.wgpuQueueWriteBuffer
        self._checked(write, self._queue, buffer._internal, 0, pointer, data.nbytes)

    def run(
        self, steps: Sequence[Step], source: Any, target: Any, out: NDArray[np.uint8] | Reordered
    ) -> None:
        """See `wgpu_q4.device.roundtrip.RoundTrip`."""
        nbytes = out.nbytes + -out.nbytes % 4
        self._submit(partial(self._record, steps), source, target, nbytes)
        self.read(target, out)

    def submit(self, commands: Commands, times: int = 1) -> None:
        """See `wgpu_q4.device.roundtrip.RoundTrip`."""
        for repeats in commands.batches(times):
            if self._in_flight >= MOST_IN_FLIGHT:
                self.wait()
            self._in_flight += 1
            self._submit(partial(self._record_commands, commands, repeats))

    def append(self, compute_pass: Any, commands: Commands) -> None:
        """See `wgpu_q4.device.roundtrip.RoundTrip`."""
        self._checked(self._record_commands, commands, 1, compute_pass._internal)

    def wait(self) -> None:
        """See `wgpu_q4.device.roundtrip.RoundTrip`."""
        # What a poll returns does not tell whether the device is done.
        lib, device, nothing = self._lib, self._device._internal, self._ffi.NULL
        self._asked += 1
        lib.wgpuQueueOnSubmittedWorkDone(self._queue, self._done_is[0])
        patience = time.perf_counter() + self._spin
        while self._done[0] < self._asked:
            lib.wgpuDevicePoll(device, time.perf_counter() >= patience, nothing)
            if self._interrupts:
                raise self._interrupts.pop()
        self._in_flight = 0

    def _record(self, steps: Sequence[Step], compute_pass: Any) -> None:
        lib, nothing = self._lib, self._ffi.NULL
        for pipeline, group, workgroups in steps:
            lib.wgpuComputePassEncoderSetPipeline(compute_pass, pipeline._internal)
            lib.wgpuComputePassEncoderSetBindGroup(compute_pass, 0, group._internal, 0, nothing)
            lib.wgpuComputePassEncoderDispatchWorkgroups(compute_pass, *workgroups)

    def _record_commands(self, commands: Commands, repeats: int, compute_pass: Any) -> None:
        for _ in range(repeats):
            encode_commands(commands, compute_pass, self._lib, self._ffi.NULL)

    def _submit(
        self,
        record: Callable[[Any], None],
        source: Any = None,
        target: Any = None,
        nbytes: int = 0,
    ) -> None:
        """Submit a compute pass that ``record`` fills, and a copy of its result to ``target``."""
        lib, commands = self._lib, self._commands
        commands[0] = self._ffi.NULL
        try:
            self._checked(self._encode, record, source, target, nbytes)
            self._checked(lib.wgpuQueueSubmit, self._queue, 1, commands)
        finally:
            if commands[0] != self._ffi.NULL:
                lib.wgpuCommandBufferRelease(commands[0])

    def _encode(self, record: Callable[[Any], None], source: Any, target: Any, nbytes: int) -> None:
        """Make the commands that `_submit` submits."""
        lib = self._lib
        encoder = lib.wgpuDeviceCreateCommandEncoder(self._device._internal, self._encoder_is)
        try:
            compute_pass = lib.wgpuCommandEncoderBeginComputePass(encoder, self._pass_is)
            try:
                record(compute_pass)
                lib.wgpuComputePassEncoderEnd(compute_pass)
            finally:
                lib.wgpuComputePassEncoderRelease(compute_pass)
            if target is not source:
                lib.wgpuCommandEncoderCopyBufferToBuffer(
                    encoder, source._internal, 0, target._internal, 0, nbytes
                )
            self._commands[0] = lib.wgpuCommandEncoderFinish(encoder, self._commands_are)
        finally:
            lib.wgpuCommandEncoderRelease(encoder)

    def read(
        self, target: Any, out: NDArray[np.uint8] | Reordered, *, is_last: bool = True
    ) -> None:
        """See `wgpu_q4.device.roundtrip.RoundTrip`."""
        lib, device, nothing = self._lib, self._device._internal, self._ffi.NULL
        buffer, nbytes = target._internal, out.nbytes + -out.nbytes % 4
        # The answer to a call that was interrupted may arrive during the next call.
        self._calls += 1
        self._answers.clear()
        self._map_is.userdata1 = self._ffi.cast("void *", self._calls)
        lib.wgpuBufferMapAsync(buffer, lib.WGPUMapMode_Read, 0, nbytes, self._map_is[0])
        patience = time.perf_counter() + self._spin
        while self._calls not in self._answers:
            # A poll that waits returns when the device has nothing left to do.  The callback may
            # still be running then, in wgpu-py's own thread, which polls for the user's own reads.
            wait = is_last and time.perf_counter() >= patience
            lib.wgpuDevicePoll(device, wait, nothing)
            if not is_last:
                time.sleep(_NAP_SECONDS)
            if self._interrupts:
                raise self._interrupts.pop()
        status, message = self._answers.pop(self._calls)
        if status != lib.WGPUMapAsyncStatus_Success:
            raise DeviceError(f"the device did not hand a result back: {message}")
        try:
            mapped = lib.wgpuBufferGetMappedRange(buffer, 0, nbytes)
            if mapped == nothing:
                raise DeviceError("the device did not hand a result back: it has no address")
            copy_bytes(np.frombuffer(self._ffi.buffer(mapped, nbytes), np.uint8, out.nbytes), out)
        finally:
            lib.wgpuBufferUnmap(buffer)

    def _checked(self, call: Callable[..., T], *arguments: Any) -> T:
        """Return ``call(*arguments)``; raise the last error that wgpu-native reported meanwhile.

        wgpu-py does so for each call.  What ``call`` does after an error must be harmless.
        """
        self._errors.capture(_NAME)
        try:
            result = call(*arguments)
        finally:
            problem = self._errors.release(_NAME)
        if problem is not None:
            raise self._error(problem[1])
        return result


def _map_callback(
    ffi: Any, answers: dict[int, tuple[int, str]], interrupts: list[BaseException]
) -> Any:
    """Return a C callback that enters status and message into ``answers``, by the call's number.

    Control-C may strike while it runs, where nothing can be raised: ``interrupts`` gets it instead.
    The callback refers to these two only: a reference to the device would keep it for ever.
    """

    def interrupted(_kind: object, error: BaseException, _trace: object) -> None:
        interrupts.append(error)

    @ffi.callback(  # type: ignore[untyped-decorator]
        "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", onerror=interrupted
    )
    def mapped(status: int, message: Any, call: Any, _unused: Any) -> None:
        text = ""
        if message.data != ffi.NULL:
            # The text ends at a zero byte or after `length` bytes, which is huge if not counted.
            text = ffi.string(message.data, min(message.length, 1 << 12)).decode(errors="replace")
        answers[int(ffi.cast("uintptr_t", call))] = status, text

    return mapped


def _done_callback(ffi: Any, done: list[int], interrupts: list[BaseException]) -> Any:
    """Return a C callback that counts its calls in ``done``; see `_map_callback`."""

    def interrupted(_kind: object, error: BaseException, _trace: object) -> None:
        done[0] += 1
        interrupts.append(error)

    @ffi.callback(  # type: ignore[untyped-decorator]
        "void(WGPUQueueWorkDoneStatus, WGPUStringView, void *, void *)", onerror=interrupted
    )
    def called(_status: int, _message: Any, _one: Any, _other: Any) -> None:
        done[0] += 1

    return called
