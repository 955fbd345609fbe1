"""The way to a device and back: write the input, run steps, bring the result to the host.

There are two ways.  `PublicRoundTrip` keeps to WebGPU's API and works with every implementation.
`wgpu_q4.device.native.NativeRoundTrip` calls the same functions of wgpu-native without wgpu-py in
between, which makes a Python object and several dictionaries for each call, maps a buffer only
after an empty submission, and waits for that on another thread: in a decode step this costs more
time than the matrix product.

wgpu-py promises nothing about those functions.  So each device runs them once on known bytes before
they are used, ``wgpu-q4 info`` says which way was chosen and why not the other, and
``WGPU_Q4_ROUND_TRIP`` chooses one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.commands import MOST_IN_FLIGHT, Commands
from wgpu_q4.device.implementation import implementation_of
from wgpu_q4.device.interrupts import Postponed
from wgpu_q4.device.native import NativeRoundTrip
from wgpu_q4.device.pipelines import Step, encode
from wgpu_q4.errors import DeviceError
from wgpu_q4.format.parallel import Reordered, copy_bytes

ENVIRONMENT_VARIABLE = "WGPU_Q4_ROUND_TRIP"
WAYS = ("native", "public")

PROBE_BYTES = 64
_KNOWN_BYTES = np.arange(1, PROBE_BYTES + 1, dtype=np.uint8)


class RoundTrip(Protocol):
    """A way to use a device, by one thread at a time: `Context.lock` sees to that.

    Attributes:
        name: one of `WAYS`.
        reason: the reason why the fastest way is not used; empty if this is the fastest.
    """

    name: str
    reason: str

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """Queue ``data``, C-contiguous and a multiple of 4 bytes, for the start of ``buffer``."""
        ...

    def run(
        self, steps: Sequence[Step], source: Any, target: Any, out: NDArray[np.uint8] | Reordered
    ) -> None:
        """Run ``steps`` in one compute pass, then `read` what they left in ``source``.

        Args:
            steps: may be empty.
            source: the buffer whose start is the result.
            target: the buffer to map: ``source`` itself, or another one to copy the result to.
            out: as for `read`.
        """
        ...

    def read(
        self, target: Any, out: NDArray[np.uint8] | Reordered, *, is_last: bool = True
    ) -> None:
        """Wait for what was submitted, then fill ``out`` from the start of ``target``.

        Args:
            target: an unmapped buffer that may be mapped for reading.
            out: C-contiguous bytes, at most as many as ``target`` has, at least one.
            is_last: False if more was submitted since, which need not be waited for.

        Raises:
            DeviceError: the buffer cannot be mapped, as when its device is lost.
        """
        ...

    def submit(self, commands: Commands, times: int = 1) -> None:
        """Encode ``commands`` so many times and submit them; does not wait for the device.

        Short sequences share a submission; one sequence is never divided.
        """
        ...

    def append(self, compute_pass: Any, commands: Commands) -> None:
        """Append ``commands`` to a ``GPUComputePassEncoder`` of the caller."""
        ...

    def wait(self) -> None:
        """Wait until the device has done all that was submitted."""
        ...


class PublicRoundTrip:
    """The round trip through WebGPU's API."""

    name = "public"

    def __init__(self, device: Any, reason: str = "") -> None:
        self.reason = reason
        self._device = device
        self._in_flight = 0
        self._end: tuple[Any, Any] | None = None
        implementation = implementation_of(device)
        self._read_mode = int(implementation.MapMode.READ)
        # wgpu waits on a thread of its own, where no signal's handler runs; wgpudawn does not.
        self._wait: Callable[[], AbstractContextManager[object]] = (
            Postponed if implementation.__name__ == "wgpudawn" else nullcontext
        )

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """See `RoundTrip`."""
        self._device.queue.write_buffer(buffer, 0, data)

    def run(
        self, steps: Sequence[Step], source: Any, target: Any, out: NDArray[np.uint8] | Reordered
    ) -> None:
        """See `RoundTrip`."""
        encoder = self._device.create_command_encoder()
        encode(encoder, steps)
        if target is not source:
            encoder.copy_buffer_to_buffer(source, 0, target, 0, out.nbytes + -out.nbytes % 4)
        self._device.queue.submit([encoder.finish()])
        self.read(target, out)

    def submit(self, commands: Commands, times: int = 1) -> None:
        """See `RoundTrip`."""
        self._end = self._end or self._make_end()  # now, so that a repeated call makes nothing
        for repeats in commands.batches(times):
            encoder = self._device.create_command_encoder()
            compute_pass = encoder.begin_compute_pass()
            for _ in range(repeats):
                commands.record(compute_pass)
            compute_pass.end()
            if self._in_flight >= MOST_IN_FLIGHT:
                self.wait()
            self._in_flight += 1
            self._device.queue.submit([encoder.finish()])

    def append(self, compute_pass: Any, commands: Commands) -> None:
        """See `RoundTrip`."""
        commands.record(compute_pass)

    def wait(self) -> None:
        """See `RoundTrip`."""
        self._in_flight = 0
        # wgpu-py 0.32 raises TypeError where it is asked when work is done, so a copy tells.
        source, target = self._end = self._end or self._make_end()
        try:
            self.run([], source, target, np.empty(4, np.uint8))
        except BaseException:
            self._end = None  # nobody knows if it is mapped
            raise

    def _make_end(self) -> tuple[Any, Any]:
        usages, create = implementation_of(self._device).BufferUsage, self._device.create_buffer
        return (
            create(label="wgpu_q4 end", size=4, usage=usages.COPY_SRC),
            create(label="wgpu_q4 end", size=4, usage=usages.COPY_DST | usages.MAP_READ),
        )

    def read(
        self, target: Any, out: NDArray[np.uint8] | Reordered, *, is_last: bool = True
    ) -> None:
        """See `RoundTrip`."""
        nbytes = out.nbytes + -out.nbytes % 4
        try:
            with self._wait():
                target.map_sync(self._read_mode, 0, nbytes)
        except RuntimeError as error:
            raise DeviceError(f"the device did not hand a result back: {error}") from error
        try:
            mapped = target.read_mapped(0, nbytes, copy=False)
            copy_bytes(np.frombuffer(mapped, np.uint8, out.nbytes), out)
        finally:
            target.unmap()


def choose_round_trip(device: Any, source: Any, staging: Any, way: str | None = None) -> RoundTrip:
    """Return the fastest round trip that works on ``device``.

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
        native = NativeRoundTrip(device)
        _try_out(native, source, staging)
    except Exception as error:  # private parts may fail in any way when wgpu-py changes
        reason = (
            str(error) if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"
        )
        if way is not None:
            raise DeviceError(f"the native way does not work on this device: {reason}") from error
        return PublicRoundTrip(device, reason)
    return native


def _try_out(way: RoundTrip, source: Any, staging: Any) -> None:
    found = np.zeros_like(_KNOWN_BYTES)
    for known in (_KNOWN_BYTES, _KNOWN_BYTES[::-1].copy()):
        way.write(source, known)
        way.run([], source, staging, found)
        way.wait()
        if not np.array_equal(found, known):
            raise DeviceError(f"{PROBE_BYTES} known bytes came back changed")
