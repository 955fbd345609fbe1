"""The buffer that device arrays lie in: what is kept with it, and its way to the host and back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import DeviceError

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context
    from wgpu_q4.device.pipelines import BindGroups

_CHUNK_BYTES = 16 << 20
"""Bytes handed to the queue at a time, which bounds the staging memory of a large array."""


class Pending:
    """What the contents of a buffer wait for: the recording that computes them.

    Attributes:
        reason: the end of a sentence about the array.
        is_over: True when the recording was submitted.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.is_over = False


class Storage:
    """A buffer that device arrays lie in.

    Attributes:
        context: that of the buffer's device.
        pending: what the contents wait for; None if they are there, or on their way.
        bind_groups: bind groups that write to the buffer, each by the owner of what it reads
            besides (a part of a weight, say), with which it goes.
        bound_with: the storages whose `bind_groups` bind this buffer too.
    """

    def __init__(self, context: Context, buffer: Any) -> None:
        self.context = context
        self.pending: Pending | None = None
        self._buffer: Any = buffer
        self.bind_groups: WeakKeyDictionary[Any, BindGroups] = WeakKeyDictionary()
        self.bound_with: WeakSet[Storage] = WeakSet()

    @property
    def is_freed(self) -> bool:
        """True after `free`."""
        return self._buffer is None

    @property
    def buffer(self) -> Any:
        """The ``GPUBuffer``.

        Raises:
            DeviceError: it was freed.
        """
        if self._buffer is None:
            raise DeviceError("this device array was freed: make another one")
        return self._buffer

    def check_computed(self, by: Pending | None = None) -> None:
        """Raise unless the contents are there, on their way, or waiting for the same thing.

        Args:
            by: what the work waits for that will read the contents.

        Raises:
            DeviceError: the buffer was freed or is mapped, or its recording was not submitted.
        """
        self.check_unmapped()
        pending = self.pending
        if pending is not None and pending is not by and not pending.is_over:
            raise DeviceError(f"this device array {pending.reason}")

    def wait_for(self, pending: Pending) -> None:
        """Have contents that are not there wait for another thing, which will write them too."""
        if self.pending is not None and not self.pending.is_over:
            self.pending = pending

    def check_unmapped(self) -> None:
        """Raise `DeviceError` if the owner of the buffer has mapped it, or waits for that.

        wgpu-native aborts the process when commands are submitted that use such a buffer.
        """
        if self.buffer.map_state != "unmapped":
            raise DeviceError("the buffer of this device array is mapped: call its unmap() first")

    def check_usage(self, usage: str, what: str) -> None:
        """Raise `DeviceError` if the buffer lacks a usage, and cannot be what its name says."""
        self.check_unmapped()
        if not self.buffer.usage & self.context.usage(usage):
            raise DeviceError(
                f"this device array cannot be {what}: its buffer was made without the usage {usage}"
            )

    def free(self) -> None:
        """Let go of the buffer.

        It is not destroyed, because wgpu-native aborts the process when commands are submitted that
        use a destroyed buffer; its memory goes when nothing that was encoded uses it.
        """
        self._buffer = None
        self._forget()

    def __del__(self) -> None:
        if hasattr(self, "bound_with"):  # the last attribute; an interrupt may have come before
            self._forget()

    def _forget(self) -> None:
        """Drop the bind groups that would keep the buffer alive."""
        self.bind_groups.clear()
        for other in list(self.bound_with):
            other.bind_groups.clear()


_STORAGES = "_wgpu_q4_storages"


def watch(storage: Storage, *, is_of_package: bool = False) -> None:
    """Have ``storage`` freed when somebody destroys its buffer.

    wgpu does not tell if a buffer was destroyed, and wgpu-native aborts the process when commands
    are submitted that use it.

    Args:
        storage: what lies in the buffer.
        is_of_package: True if the buffer was made here.  It is then not destroyed: nobody knows the
            recorded kernels of a user that bind it.  Its memory goes as after `Storage.free`.
    """
    buffer = storage.buffer
    watching: WeakSet[Storage] | None = getattr(buffer, _STORAGES, None)
    if watching is None:
        watching = WeakSet()
        setattr(buffer, _STORAGES, watching)
        then = None if is_of_package else type(buffer).destroy
        buffer.destroy = partial(_destroy, ref(buffer), storage.context.lock, then)
    watching.add(storage)


def _destroy(
    reference: ref[Any],
    lock: AbstractContextManager[object],
    then: Callable[[Any], object] | None,
) -> None:
    buffer: Any = reference()
    with lock:
        for storage in list(getattr(buffer, _STORAGES)):
            storage.free()
        if then is not None:
            then(buffer)


def upload_to(storage: Storage, offset: int, array: NDArray[Any]) -> None:
    """Queue ``array``, padded with zeros to whole words, for a buffer from ``offset`` on."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    buffer, queue = storage.buffer, storage.context.device.queue
    for start in range(0, data.nbytes, _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        if chunk.nbytes % 4:
            chunk = np.pad(chunk, (0, -chunk.nbytes % 4))
        queue.write_buffer(buffer, offset + start, chunk)
        if data.nbytes > _CHUNK_BYTES:
            queue.submit([])  # lets go of the staging memory


def download_from(storage: Storage, offset: int, out: NDArray[Any]) -> None:
    """Fill ``out``, C-contiguous and not empty, from a buffer, when the device is done with it."""
    context, buffer = storage.context, storage.buffer
    found = out.reshape(-1).view(np.uint8)
    nbytes = found.nbytes + -found.nbytes % 4
    staging = context.scratch.staging(nbytes)
    try:
        if offset == 0:
            context.round_trip.run([], buffer, staging, found)
            return
        encoder = context.device.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, offset, staging, 0, nbytes)
        context.device.queue.submit([encoder.finish()])
        context.round_trip.read(staging, found)
    except BaseException:
        context.scratch.drop_mappable()
        raise
