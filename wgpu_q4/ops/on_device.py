"""What the ops on device arrays share: arguments, results, and steps that are run or recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wgpu_q4.device.array import DeviceArray, empty_array
from wgpu_q4.device.commands import Commands
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.device.parts import DevicePart
from wgpu_q4.device.pipelines import BindGroups, BufferRange, Step
from wgpu_q4.device.recording import current_recording
from wgpu_q4.device.storage import Storage
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.kernels import OutputDtype, plan_convert

_OFFSET_MULTIPLE = 256
"""Bytes.  WebGPU promises that a binding may begin at a multiple of this."""


def context_of(given: Mapping[str, DeviceArray], device: Any) -> Context:
    """Return the context of the arrays that an op was given.

    Args:
        given: the arrays, by the names of the arguments.
        device: the op's argument, which may only repeat the arrays' device.

    Raises:
        DeviceError: the arrays are on several devices, or not on that of the recording; an array
            was freed, or is not computed yet.
    """
    first, *others = given
    context = context_for(given[first].device)
    for name in others:
        if given[name].device is not context.device:
            raise DeviceError(
                f"{name} is on another device than {first}, which is on {context.adapter_summary}"
            )
    if isinstance(device, (list, tuple)):
        raise DeviceError(
            f"{first} is on one device: a list of devices is for arrays of the host. Leave device "
            f"out"
        )
    if device is not None and context_for(device) is not context:
        raise DeviceError(
            f"{first} is on another device, {context.adapter_summary}: leave device out, or pass "
            f"an array of that device"
        )
    recorded = current_recording()
    if recorded is not None and recorded.context is not context:
        raise DeviceError(f"{first} is not on the device of the recording in whose block this is")
    for array in given.values():
        array.storage.check_computed(None if recorded is None else recorded.pending)
    return context


def check_out(
    out: object,
    shape: Sequence[int],
    dtypes: tuple[str, ...],
    given: Mapping[str, DeviceArray],
    name: str = "out",
) -> None:
    """Raise unless an op can write a result of this shape to ``out``.

    Args:
        out: the argument; None lets the op make an array.
        shape: of the result.
        dtypes: that the result may have.
        given: what the op reads, by name.
        name: of the argument.

    Raises:
        TypeError: not a device array.
        ValueError: another shape or dtype, or the buffer of an array that the op reads.
        DeviceError: ``out`` was freed or is mapped, or is on another device.
    """
    if out is None:
        return
    if not isinstance(out, DeviceArray):
        raise TypeError(f"{name} must be a DeviceArray, not {type(out).__name__}")
    if out.shape != tuple(shape) or out.dtype.name not in dtypes:
        raise ValueError(
            f"{name} must be {' or '.join(dtypes)} {list(shape)}, not {out.dtype} {list(out.shape)}"
        )
    out.storage.check_unmapped()
    for other, array in given.items():
        if out.device is not array.device:
            raise DeviceError(f"{name} is on another device than {other}")
        if out.buffer is array.buffer:
            raise ValueError(
                f"{name} lies in the buffer of {other}, which the op reads: no kernel may do both "
                f"in one buffer"
            )


def refuse_out(out: object, name: str) -> None:
    """Raise `TypeError` if an op was given ``out`` with arrays of the host.

    Args:
        out: the argument.
        name: of the argument that should be a device array.
    """
    if out is not None:
        raise TypeError(
            f"out is for results that stay on a device: pass {name} as a device array, which "
            f"wgpu_q4.to_device makes"
        )


class ArrayWorkspace(Workspace):
    """The workspace of one op on device arrays; hold the context's lock and guard.

    Within the block of a recording its steps are recorded, and else they are submitted.
    """

    def __init__(self, context: Context, given: Mapping[str, DeviceArray]) -> None:
        self._recording = current_recording()
        super().__init__(context, None if self._recording is None else self._recording.scratch)
        self._used = [array.storage for array in given.values()]
        self._written: list[Storage] = []
        self._kept_with: Storage | None = None

    def result(self, out: DeviceArray | None, shape: Sequence[int], dtype: str) -> DeviceArray:
        """Return ``out``, or a new array for a result."""
        if out is None:
            out = empty_array(self.context, tuple(shape), dtype)
            if self._recording is not None:
                out.storage.pending = self._recording.pending
        elif self._recording is None and self._kept_with is None:
            self._kept_with = out.storage
        self._used.append(out.storage)
        self._written.append(out.storage)
        return out

    def bind_groups_of(self, part: DevicePart) -> BindGroups | None:
        """Return where bind groups are kept: with an ``out`` that may be given again.

        A new array is never bound a second time, and a recording holds its own bind groups.
        """
        if self._kept_with is None:
            return None
        return self._kept_with.bind_groups.setdefault(part, {})

    def floats(
        self, role: str, array: DeviceArray, rows: range, part: DevicePart
    ) -> tuple[list[Step], Any]:
        """Return the steps that make rows of an array float32, and what to bind of these.

        Args:
            role: the array's, for the scratch buffer.
            array: float32 or float16, of two dimensions.
            rows: which rows, one after the other.
            part: the part of a weight with which bind groups are kept.
        """
        source = rows_of(array, rows)
        if array.dtype.name == "float32":
            return [], source
        numbers = len(rows) * array.shape[1]
        target = self.scratch.buffer(f"{role} in float32", 4 * numbers, "STORAGE")
        return [self._converted(role, source, target, numbers, "float32", part)], target

    def from_floats(
        self, role: str, array: DeviceArray, rows: range, part: DevicePart
    ) -> tuple[Any, list[Step]]:
        """Return what to bind for float32 that is to be rows of an array, and the steps after it.

        The arguments are those of `floats`.
        """
        target = rows_of(array, rows)
        if array.dtype.name == "float32":
            return target, []
        numbers = len(rows) * array.shape[1]
        source = self.scratch.buffer(
            f"{role} in float32", 4 * numbers, "STORAGE", in_ranges=not part.is_whole
        )
        return source, [self._converted(role, source, target, numbers, "float16", part)]

    def run(self, steps: Iterable[Step]) -> None:
        """Record ``steps``, or submit them without waiting for the device."""
        commands = Commands.of(steps)
        if self._recording is not None:
            self._recording.add(commands.in_order, self._used)
            for storage in self._written:
                storage.wait_for(self._recording.pending)
            return
        if self._kept_with is not None:
            for storage in self._used:
                storage.bound_with.add(self._kept_with)
        self.context.round_trip.submit(commands)
        for storage in self._written:
            storage.pending = None  # whatever it waited for, it is overwritten

    def _converted(
        self, role: str, source: Any, target: Any, numbers: int, to: OutputDtype, part: DevicePart
    ) -> Step:
        context = self.context
        dispatch = context.plan(plan_convert, numbers, to, half_support=context.half_support)
        # Conversions of one submission must not share sizes: the queue writes them before it runs.
        sizes = self.scratch.sizes(f"conversion of {role} to {to}", numbers)
        return self.step(dispatch, {"t_in": source, "t_out": target, "sizes": sizes}, part)


def whole(array: DeviceArray) -> BufferRange:
    """Return what to bind of an array."""
    return BufferRange(array.buffer, array.offset, array.padded_nbytes)


def rows_of(array: DeviceArray, rows: range) -> BufferRange:
    """Return what to bind of rows, one after the other, of an array of two dimensions."""
    row_bytes = array.dtype.itemsize * array.shape[1]
    nbytes = len(rows) * row_bytes
    return BufferRange(array.buffer, array.offset + rows.start * row_bytes, nbytes + -nbytes % 4)


def in_turns(at_a_time: int, *arrays: DeviceArray) -> Iterator[range]:
    """Yield the rows that are bound at a time; each time begins where a binding may.

    Args:
        at_a_time: the most rows that can be bound.
        arrays: of two dimensions, with as many rows each.

    Raises:
        DeviceLimitError: no number of rows ends where a binding may begin.
    """
    rows = arrays[0].shape[0]
    if at_a_time < rows:
        sizes = [array.shape[1] * array.dtype.itemsize for array in arrays]
        multiple = math.lcm(*(_OFFSET_MULTIPLE // math.gcd(_OFFSET_MULTIPLE, n) for n in sizes))
        if at_a_time < multiple:
            raise DeviceLimitError(
                f"the device binds {at_a_time} rows at a time, and of {rows} it could bind "
                f"{multiple} or none: pass {at_a_time} rows or fewer"
            )
        at_a_time -= at_a_time % multiple
    for start in range(0, rows, at_a_time):
        yield range(start, min(start + at_a_time, rows))
