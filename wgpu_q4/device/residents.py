"""A weight on a device: its packed bytes once in each layout, its scales once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.parts import DevicePart, rows_of_a_part, shape_of
from wgpu_q4.kernels import Layout
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context


class DeviceWeight:
    """The copy of a `Q4Weight` on one device, read by every op there.

    Attributes:
        adapter_summary: one line on the adapter.
        parts: its rows in their order, as many in each part as one binding holds; mostly one part.
        shape: V, K, G and the dtype of the scales.
        readers: the names of the ops that have used it.
        exponent: on a device with matrix units, of the power of two that brings the largest scale
            to 2^11 … 2^12; 0 on other devices.
    """

    def __init__(self, context: Context, weight: Q4Weight) -> None:
        self.adapter_summary = context.adapter_summary
        self.shape = shape_of(weight)
        vocab, self._part_rows = self.shape.vocab, rows_of_a_part(context, self.shape)
        self.exponent = exponent_of(weight.scales) if context.matrix_units else 0
        self.readers: set[str] = set()
        self.parts = tuple(
            DevicePart(context, weight, slice(first, min(first + self._part_rows, vocab)))
            for first in range(0, vocab, self._part_rows)
        )

    def places_of(self, ids: NDArray[np.int32]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
        """Return the number of the part that holds the row of each id, and the row there.

        numpy sorts numbers of 16 bits three times as fast as others.
        """
        numbers, rows = np.divmod(ids, np.int32(self._part_rows))
        return numbers.astype(np.uint16), rows

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts in which the packed bytes are held, in the order of their uploads."""
        return tuple(dict.fromkeys(layout for part in self.parts for layout in part.packed))

    @property
    def nbytes(self) -> int:
        """Bytes held on the device: the packed bytes in every layout, and the scales."""
        return sum(map(_resource_bytes, self.resources))

    @property
    def resources(self) -> list[Any]:
        """The buffers and textures held of each part, its scales last."""
        return [held for part in self.parts for held in (*part.packed.values(), part.scales)]

    def describe(self) -> str:
        """Return one line: adapter, layouts, parts, bytes, readers."""
        readers = ", ".join(sorted(self.readers)) or "nothing yet"
        layouts = " and ".join(self.layouts) or "no packed data"
        parts = f" in {len(self.parts)} parts" if len(self.parts) > 1 else ""
        return f"{self.adapter_summary}: {layouts}{parts}, {self.nbytes:,} bytes, read by {readers}"


def exponent_of(scales: NDArray[Any]) -> int:
    """Return the exponent of the power of two that brings the largest of ``scales`` to 2^11 … 2^12.

    Eight times that, the largest weight, is within half precision, and a scale may be 2^26 times
    smaller before its weights become subnormal there.
    """
    bits = np.dtype(f"u{scales.itemsize}")
    magnitudes = scales.view(bits) & bits.type(np.iinfo(bits).max >> 1)
    largest = float(magnitudes.max().view(scales.dtype))
    if not 0 < largest < np.inf:
        return 0
    return int(np.clip(12 - np.frexp(largest)[1], -126, 126))


def _resource_bytes(resource: Any) -> int:
    if hasattr(resource, "width"):
        return int(resource.width) * int(resource.height) * 16
    return int(resource.size)
