"""Recording: dispatches are gathered first, and then submitted together, once or many times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import index
from typing import Any, SupportsIndex
from weakref import ref

from numpy.typing import NDArray

from wgpu_q4.device.commands import Command, Commands
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.device.implementation import device_of
from wgpu_q4.device.scratch import Scratch
from wgpu_q4.device.storage import Pending, Storage
from wgpu_q4.errors import DeviceError

_OPEN = "is computed when the block of its recording ends"
_NOT_SUBMITTED = "is not computed yet: replay its recording, or encode it"
_FAILED = "was never computed: the block of its recording raised an error"


class Recording:
    """Dispatches in their order, with all that they need: run them as often as you like.

    `wgpu_q4.recording` makes one.  It holds the arrays that its ops were given and returned: each
    run reads the former as they are then, and overwrites the latter.  A run makes no buffer, no
    bind group and no pipeline.

    Attributes:
        context: that of the device.
        scratch: the buffers of intermediate results, which belong to this recording alone.
        pending: what the arrays wait for that its ops return.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.scratch = RecordingScratch(context)
        self.pending = Pending(_OPEN)
        self._gathered: list[Command] | None = []
        self._commands = Commands(())
        self._used: dict[Storage, None] = {}

    def __len__(self) -> int:
        """Return the number of dispatches."""
        return len(self._commands if self._gathered is None else self._gathered)

    @property
    def device(self) -> Any:
        """The ``GPUDevice``."""
        return self.context.device

    @property
    def has_ended(self) -> bool:
        """True when the block of the recording has ended."""
        return self._gathered is None

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers that belong to this recording alone, without those of arrays."""
        return self.scratch.nbytes

    def dispatch(
        self,
        pipeline: Any,
        bind_groups: Any,
        workgroups: SupportsIndex | Sequence[SupportsIndex],
    ) -> None:
        """Record a dispatch of a kernel of yours, within the block of the recording.

        Args:
            pipeline: a ``GPUComputePipeline`` of this device.
            bind_groups: a ``GPUBindGroup``, or several: those of the groups 0, 1, ….  Bind a
                device array by its ``binding``.
            workgroups: the grid: one to three numbers.

        Raises:
            TypeError: not such objects, or a grid of other things than integers.
            ValueError: no grid.
            DeviceError: the block has ended, or an object is on another device.
        """
        of = self.context.implementation
        groups = tuple(bind_groups) if isinstance(bind_groups, (list, tuple)) else (bind_groups,)
        for name, kind, given in (
            ("pipeline", of.GPUComputePipeline, (pipeline,)),
            ("bind_groups", of.GPUBindGroup, groups),
        ):
            for one in given:
                if not isinstance(one, kind):
                    raise TypeError(f"{name} must be a {kind.__name__}, not {type(one).__name__}")
                if device_of(one) is not self.device:
                    raise DeviceError(f"{name} is not of the device of this recording")
        given_grid = workgroups if isinstance(workgroups, Iterable) else (workgroups,)
        grid = [index(number) for number in given_grid]
        x, y, z, *more = *grid, *[1] * max(0, 3 - len(grid))
        if more or not grid or not 0 <= min(x, y, z) <= max(x, y, z) < 1 << 32:
            raise ValueError(
                f"workgroups must be one to three numbers from 0 to 2^32 - 1, not {workgroups!r}"
            )
        self._append([Command(pipeline, groups, (x, y, z))])

    def add(self, commands: Iterable[Command], used: Iterable[Storage]) -> None:
        """Record the dispatches of an op; for the ops.

        Args:
            commands: the dispatches.
            used: the storages of the arrays that they read or write.

        Raises:
            DeviceError: the block has ended.
        """
        self._append(commands)
        self._used |= dict.fromkeys(used)

    def replay(self, times: int = 1) -> None:
        """Run the recording so many times; return without waiting for the device.

        Short recordings share a submission; none is divided between two.

        Raises:
            ValueError: ``times`` is less than 1.
            DeviceError: the block of the recording has not ended, or it raised an error; an array
                was freed; or the device is lost.
        """
        if index(times) < 1:
            raise ValueError(f"times must be at least 1, not {times}")
        context = context_for(self.device)
        with context.lock, context.guard, context.guard.busy:
            self._check_complete()
            if len(self._commands):
                context.round_trip.submit(self._commands, index(times))
            self.pending.is_over = True

    def encode(self, target: Any) -> None:
        """Append the recording to an encoder or a compute pass of yours, which you submit.

        Keep the arrays until then.

        Args:
            target: a ``GPUCommandEncoder``, which gets a pass, or a ``GPUComputePassEncoder``.

        Raises:
            TypeError: something else.
            DeviceError: as for `replay`; or ``target`` is on another device.
        """
        of, context = self.context.implementation, context_for(self.device)
        if not isinstance(target, (of.GPUCommandEncoder, of.GPUComputePassEncoder)):
            raise TypeError(
                f"target must be a GPUCommandEncoder or a GPUComputePassEncoder, "
                f"not {type(target).__name__}"
            )
        if device_of(target) is not self.device:
            raise DeviceError("target is not of the device of this recording")
        with context.lock, context.guard, context.guard.busy:
            self._check_complete()
            is_pass = isinstance(target, of.GPUComputePassEncoder)
            compute_pass = target if is_pass else target.begin_compute_pass()
            context.round_trip.append(compute_pass, self._commands)
            if not is_pass:
                compute_pass.end()
            self.pending.is_over = True

    def close(self, *, is_failed: bool = False) -> None:
        """End the block; for `recording`."""
        gathered, self._gathered = self._gathered or (), None
        self._commands = Commands(() if is_failed else gathered)
        self.pending.reason = _FAILED if is_failed else _NOT_SUBMITTED

    def _append(self, commands: Iterable[Command]) -> None:
        if self._gathered is None:
            raise DeviceError("the block of this recording has ended: make another recording")
        self._gathered += commands

    def _check_complete(self) -> None:
        if self._gathered is not None:
            raise DeviceError("the block of this recording has not ended: run it afterwards")
        if self.pending.reason == _FAILED:
            raise DeviceError("the block of this recording raised an error: make another recording")
        for storage in self._used:
            if storage.is_freed:
                raise DeviceError(
                    "an array that this recording uses was freed: make another recording"
                )
            storage.check_unmapped()

    def __repr__(self) -> str:
        return f"Recording({len(self)} dispatches, {self.context.adapter_summary})"


class RecordingScratch(Scratch):
    """The scratch buffers of a recording.

    Its dispatches run later than they are planned.  So nothing that the host writes may be
    overwritten before: sizes and inputs have buffers of their own.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._inputs = 0

    def sizes(self, role: str, *values: int) -> Any:
        """See `Scratch`; there is a buffer for each tuple of values."""
        return super().sizes(f"{role} {values}", *values)

    def input(self, role: str, data: NDArray[Any], *, in_ranges: bool = False) -> Any:
        """See `Scratch`; there is a buffer for each call."""
        self._inputs += 1
        return super().input(f"{role} {self._inputs}", data, in_ranges=in_ranges)


class _Block:
    """The block of a recording, which lives as long as the frame of `recording`."""

    def __init__(self, made: Recording) -> None:
        self.recording = made


_current: ContextVar[ref[_Block] | None] = ContextVar("wgpu_q4.recording", default=None)
"""A weak reference, because nothing else tells that a block has ended: an interrupt may come before
`recording` says so, and a task that was started in the block has a copy of this variable."""


def current_recording() -> Recording | None:
    """Return the recording whose block this thread, or asyncio task, is in; None outside of one."""
    reference = _current.get()
    block = None if reference is None else reference()
    return None if block is None or block.recording.has_ended else block.recording


@contextmanager
def recording(device: Any = None, *, submit: bool = True) -> Iterator[Recording]:
    """Return a context manager in which the ops on device arrays are recorded instead of run.

    At the end of the block they run, in one submission::

        with wgpu_q4.recording() as recorded:
            rows = wgpu_q4.embedding(ids, weight)
            logits = wgpu_q4.linear(rows, weight)
        recorded.replay(10)  # ten times more, with what is in ids by then

    Ops on arrays of the host run at once, as they do elsewhere, and so do ops of other threads and
    asyncio tasks, but for those that the block starts itself with its context (``create_task``,
    ``asyncio.to_thread``): while it lasts, they belong to it.  If the block raises an error,
    nothing runs.

    Args:
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter; the arrays
            must be there.
        submit: False to run nothing at the end of the block.

    Raises:
        DeviceError: there is no such device, or this thread is in the block of another recording.
    """
    if current_recording() is not None:
        raise DeviceError("this is the block of another recording: end that one first")
    made = Recording(context_for(device))
    block = _Block(made)
    try:
        _current.set(ref(block))
        yield made
    except BaseException:
        made.close(is_failed=True)
        raise
    finally:
        _current.set(None)
    made.close()
    if submit:
        made.replay()
