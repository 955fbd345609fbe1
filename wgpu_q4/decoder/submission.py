"""Commands submitted without waiting, and the ids that they make read later.

To encode a dispatch takes the host about as long as a small kernel takes a GPU, so another thread
encodes while this one waits for ids.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.commands import Commands

if TYPE_CHECKING:
    from wgpu_q4.device import Context

_AT_ONCE = 3
"""Submissions whose ids are not read yet: the one that is waited for, one that the device has after
it, and one that another thread encodes meanwhile."""


class Submission:
    """Commands of which the last copies ids to where the host can read them.

    Attributes:
        encoded: the ``GPUCommandBuffer``, which another thread may still be making.
        place: which of the buffers gets the ids.
        count: how many there are; 0 for none.
        is_submitted: True once the device has it.
    """

    def __init__(self, encoded: Future[Any], place: int, count: int) -> None:
        self.encoded, self.place, self.count = encoded, place, count
        self.is_submitted = False


class Submissions:
    """The submissions of one decoder; use it with the context's lock held.

    A buffer for ids serves every third submission: the ids of the one before must have been read,
    or must never be.

    Attributes:
        at_once: how many may wait to be read.
        seconds: what the host has spent on encoding.
    """

    def __init__(self, context: Context, ids: Any, most: int) -> None:
        self._context, self._ids, self._most = context, ids, most
        self._staging: list[Any] = [self._make_staging() for _ in range(_AT_ONCE)]
        self._next = 0
        self.seconds = 0.0
        # A device that runs on the processor needs the cores; Dawn is used by one thread at a time.
        has_worker = context.round_trip.name == "native" and not context.is_software
        self._worker = ThreadPoolExecutor(1, "wgpu_q4 encoder") if has_worker else None
        self.at_once = _AT_ONCE if has_worker else _AT_ONCE - 1

    def start(self, parts: Sequence[Commands], first: int = 0, count: int = 0) -> Submission:
        """Begin to encode ``parts`` in one pass, and the copy of ``count`` ids from the ``first``.

        `submit` or `read_first` must follow before the context's lock is given up.
        """
        place = self._next
        if self._staging[place] is None:
            self._staging[place] = self._make_staging()
        staging = self._staging[place]
        if count:
            self._next = (place + 1) % _AT_ONCE
        if self._worker is not None:
            encoded = self._worker.submit(self._encode, parts, first, staging, count)
        else:
            encoded = Future()
            encoded.set_result(self._encode(parts, first, staging, count))
        return Submission(encoded, place, count)

    def submit(self, submission: Submission) -> Submission:
        """Give a submission to the device once it is encoded, and return it."""
        if not submission.is_submitted:
            self._context.device.queue.submit([submission.encoded.result()])
            submission.is_submitted = True
        return submission

    def read_first(self, waiting: deque[Submission]) -> NDArray[np.uint32]:
        """Submit what is ``waiting``, take the first out of it, and wait for its ids.

        The last is submitted after that if it might still be being encoded.  A read that is
        interrupted may leave its buffer mapped, and a submission that copies to a mapped buffer
        ends the process: so the buffer is forgotten until it has been read.
        """
        for submission in list(waiting)[: _AT_ONCE - 1]:
            self.submit(submission)
        first = waiting.popleft()
        ids = np.empty(first.count, np.uint32)
        staging, self._staging[first.place] = self._staging[first.place], None
        try:
            self._context.round_trip.read(staging, ids.view(np.uint8), is_last=not waiting)
            self._staging[first.place] = staging
        finally:
            wait([submission.encoded for submission in waiting])
        for submission in waiting:
            self.submit(submission)
        return ids

    def _make_staging(self) -> Any:
        return self._context.create_buffer(
            "wgpu_q4 decoder: ids to read", 4 * self._most, "COPY_DST", "MAP_READ"
        )

    def _encode(self, parts: Sequence[Commands], first: int, staging: Any, count: int) -> Any:
        start = time.perf_counter()
        encoder = self._context.device.create_command_encoder()
        compute_pass = encoder.begin_compute_pass()
        for commands in parts:
            self._context.round_trip.append(compute_pass, commands)
        compute_pass.end()
        if count:
            encoder.copy_buffer_to_buffer(self._ids, 4 * first, staging, 0, 4 * count)
        commands = encoder.finish()
        self.seconds += time.perf_counter() - start
        return commands

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return 4 * self._most * _AT_ONCE
