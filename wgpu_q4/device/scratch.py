"""Buffers that the calls on a device share, one for each role: inputs, intermediate and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import DeviceLimitError

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context

LARGEST_MAPPED_RESULT = 1 << 20
"""Bytes of a result that a kernel writes where the host reads them, on a device that can.

On an H200 a row of 128,256 logits is then on the host 28 µs sooner: it crosses the bus while the
kernel runs.  Larger results were not measured; they are copied, which is sure to use the bus well.
"""

_SMALLEST = 1 << 12


class Scratch:
    """The scratch buffers of one device.

    A buffer belongs to the call that holds `Context.lock`; the next call overwrites it.  So a
    repeated call allocates nothing, and a result that somebody keeps must not lie here.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._buffers: dict[str, Any] = {}
        self._sizes: dict[str, tuple[Any, tuple[int, ...]]] = {}

    def buffer(self, role: str, nbytes: int, *usages: str, in_ranges: bool = False) -> Any:
        """Return the buffer of ``role``, enlarged to ``nbytes`` if necessary.

        Its contents are undefined.

        Args:
            role: what the buffer is for.
            nbytes: its least size.
            usages: the names of its usages.
            in_ranges: True if only a `BufferRange` of it is bound at a time, so that it may be
                larger than a binding.

        Raises:
            DeviceLimitError: more than one binding or buffer may have here.
        """
        if in_ranges:
            role = f"{role} in ranges"  # others bind all of the buffer
        buffer = self._buffers.get(role)
        if buffer is None or buffer.size < nbytes:
            context = self._context
            limit = context.largest_binding
            if in_ranges or "STORAGE" not in usages:
                limit = context.limits["max-buffer-size"]
            if nbytes > limit:
                raise DeviceLimitError(
                    f"{role} takes {nbytes:,} bytes in one buffer; {context.adapter_summary} "
                    f"allows {limit:,}"
                )
            rounded = max(_SMALLEST, 1 << (nbytes - 1).bit_length())
            size = nbytes if rounded > limit else rounded
            buffer = context.create_buffer(f"wgpu_q4 {role}", size, *usages)
            self._buffers[role] = buffer
        return buffer

    def input(self, role: str, data: NDArray[Any], *, in_ranges: bool = False) -> Any:
        """Return the buffer of ``role`` with ``data`` queued for it.

        Args:
            role: what the buffer is for.
            data: C-contiguous, a multiple of 4 bytes.
            in_ranges: as for `buffer`.
        """
        buffer = self.buffer(role, data.nbytes, "STORAGE", "COPY_DST", in_ranges=in_ranges)
        self._context.round_trip.write(buffer, data)
        return buffer

    def sizes(self, role: str, *values: int) -> Any:
        """Return the uniform buffer of ``role`` with up to four int32 queued for it.

        They are written only when they change: a repeated call of one op writes none.
        """
        written = self._sizes.get(role)
        if written is not None and written[1] == values:
            return written[0]
        buffer = self.buffer(f"sizes of {role}", 16, "UNIFORM", "COPY_DST")
        self._sizes.pop(role, None)  # if the write fails, nothing is known of the buffer
        padded = np.array([*values, *[0] * (4 - len(values))], np.int32)
        self._context.round_trip.write(buffer, padded)
        self._sizes[role] = buffer, values
        return buffer

    def result(self, role: str, nbytes: int, *, in_ranges: bool = False) -> Any:
        """Return the buffer of a result that `Context.run` brings to the host.

        ``in_ranges`` is as for `buffer`.
        """
        usages = ["STORAGE", "COPY_SRC"]
        if nbytes <= LARGEST_MAPPED_RESULT and self._context.maps_results:
            role, usages = f"{role} to map", [*usages, "MAP_READ"]
        return self.buffer(role, nbytes, *usages, in_ranges=in_ranges)

    def staging(self, nbytes: int) -> Any:
        """Return the buffer to which results are copied that the host cannot map."""
        return self.buffer("staging", nbytes, "COPY_DST", "MAP_READ")

    @property
    def nbytes(self) -> int:
        """Bytes of all the buffers."""
        return sum(int(buffer.size) for buffer in list(self._buffers.values()))

    def drop_mappable(self) -> None:
        """Drop all mappable buffers: after an interrupted read, their map state is unknown."""
        mappable = self._context.usage("MAP_READ")
        self._buffers = {
            role: buffer for role, buffer in self._buffers.items() if not buffer.usage & mappable
        }
