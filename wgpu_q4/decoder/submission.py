"""Commands submitted without waiting, and the ids that they make read later."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.commands import Commands

if TYPE_CHECKING:
    from wgpu_q4.device import Context

IN_FLIGHT = 3
"""Submissions whose ids may wait to be read: the one that is read, and two that the device has."""


@dataclass(frozen=True)
class Ticket:
    """A submission whose ids were copied to where the host can read them.

    Attributes:
        staging: the buffer that they are in.
        count: how many there are.
    """

    staging: Any
    count: int


class Submissions:
    """Submissions that end by copying ids of the sequence to the host's reach.

    A buffer for these ids serves every `IN_FLIGHT`th submission: the ids of the one before must
    have been read, or must never be.

    Attributes:
        seconds: what the host has spent on encoding and submitting.
    """

    def __init__(self, context: Context, ids: Any, most: int) -> None:
        self._context, self._ids = context, ids
        self._staging = [
            context.create_buffer(
                f"wgpu_q4 decoder: ids to read {i}", 4 * most, "COPY_DST", "MAP_READ"
            )
            for i in range(IN_FLIGHT)
        ]
        self._next = 0
        self.seconds = 0.0

    def submit(self, parts: Sequence[Commands], first: int = 0, count: int = 0) -> Ticket | None:
        """Submit ``parts`` in one pass, and the copy of ``count`` ids from the ``first``."""
        start, device = time.perf_counter(), self._context.device
        encoder = device.create_command_encoder()
        compute_pass = encoder.begin_compute_pass()
        for commands in parts:
            self._context.round_trip.append(compute_pass, commands)
        compute_pass.end()
        ticket = None
        if count:
            staging = self._staging[self._next]
            self._next = (self._next + 1) % IN_FLIGHT
            encoder.copy_buffer_to_buffer(self._ids, 4 * first, staging, 0, 4 * count)
            ticket = Ticket(staging, count)
        device.queue.submit([encoder.finish()])
        self.seconds += time.perf_counter() - start
        return ticket

    def read(self, ticket: Ticket, *, is_last: bool) -> NDArray[np.uint32]:
        """Wait for a submission, which is the last if ``is_last``, and return its ids."""
        ids = np.empty(ticket.count, np.uint32)
        self._context.round_trip.read(ticket.staging, ids.view(np.uint8), is_last=is_last)
        return ids

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(int(buffer.size) for buffer in self._staging)
