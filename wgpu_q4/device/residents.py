"""A weight on a device: its packed bytes once in each layout, its scales once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.upload import check_binding, pack_blocks, upload
from wgpu_q4.kernels import Layout, MatrixShape
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context
    from wgpu_q4.device.pipelines import BindGroups


class DeviceWeight:
    """The copy of a `Q4Weight` on one device, read by every op there.

    Attributes:
        adapter_summary: one line on the adapter.
        shape: V, K, G and the dtype of the scales.
        scales: the buffer of scales ``[V, K/G]``.
        readers: the names of the ops that have used it.
        bind_groups: the bind groups that bind it, see `wgpu_q4.device.pipelines`.
        exponent: on a device with matrix units, of the power of two that brings the largest scale
            to 2^11 … 2^12; 0 on other devices.
    """

    def __init__(self, context: Context, weight: Q4Weight) -> None:
        self.adapter_summary = context.adapter_summary
        vocab, embed_dim = weight.shape
        self.shape = MatrixShape(
            vocab,
            embed_dim,
            weight.group_size,
            "float16" if weight.scales.dtype == np.float16 else "float32",
        )
        check_binding(context, "the packed weight", weight.packed.nbytes)
        check_binding(context, "the scales", weight.scales.nbytes)
        self.exponent = _exponent(weight.scales) if context.matrix_units else 0
        self.readers: set[str] = set()
        self.bind_groups: BindGroups = {}
        self.scales = upload(context, "scales", weight.scales)
        self._packed: dict[Layout, Any] = {}
        self._bindings: dict[Layout, dict[str, Any]] = {}

    def bindings(self, context: Context, weight: Q4Weight, layout: Layout) -> dict[str, Any]:
        """Return the resources that a kernel binds of this weight, by the names of the bindings.

        Args:
            context: that of this device.
            weight: the weight that this is a copy of.
            layout: how its packed bytes are held; they are uploaded when first asked for.
        """
        bindings = self._bindings.get(layout)
        if bindings is None:
            packed = self._packed[layout] = self._make(context, weight, layout)
            view = packed.create_view() if layout == "blocks_texture2d" else packed
            bindings = {"t_weight": view, "t_scales": self.scales}
            self._bindings[layout] = bindings
        return bindings

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts in which the packed bytes are held, in the order of their uploads."""
        return tuple(self._packed)

    @property
    def nbytes(self) -> int:
        """Bytes held on the device: the packed bytes in every layout, and the scales."""
        return sum(map(_resource_bytes, self.resources))

    @property
    def resources(self) -> list[Any]:
        """The buffers and textures held, the scales last."""
        return [*self._packed.values(), self.scales]

    def describe(self) -> str:
        """Return one line: adapter, layouts, bytes, readers."""
        readers = ", ".join(sorted(self.readers)) or "nothing yet"
        layouts = " and ".join(self._packed) or "no packed data"
        return f"{self.adapter_summary}: {layouts}, {self.nbytes:,} bytes, read by {readers}"

    def _make(self, context: Context, weight: Q4Weight, layout: Layout) -> Any:
        if layout == "rows":
            return upload(context, "packed rows", weight.packed_as("linear"))
        if layout == "rows_embedding":
            return upload(context, "packed rows", weight.packed_as("embedding"))
        rows = self._packed.get("rows")
        if rows is None:
            rows = upload(context, "rows to pack", weight.packed_as("linear"))
        return pack_blocks(context, self.shape, rows, layout)


def _exponent(scales: NDArray[Any]) -> int:
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
