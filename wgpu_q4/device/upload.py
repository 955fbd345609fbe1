"""One weight on one device: its packed bytes once, its scales once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import DEFAULT_LAYOUT, Layout, MatrixShape, plan_pack
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from wgpu_q4.device.context import BindGroups, Context

_CHUNK_BYTES = 16 << 20
"""Bytes handed to the queue at a time, which bounds the staging memory of a large upload.

A mapped file goes to an H200 in 0.03 s in chunks of 4 or 16 MiB, 0.04 s in chunks of 64 MiB, and
0.05 s through a buffer that is mapped when it is made."""


class DeviceWeight:
    """The copy of a `Q4Weight` on one device, read by every op there.

    Attributes:
        shape: V, K, G and the dtype of the scales.
        scales: the buffer of scales ``[V, K/G]``.
        readers: the ops that have used it.
        bind_groups: those that bind it, for `Context.encode`.
        exponent: of the power of two that brings the largest scale to 2^11 … 2^12, for the kernel
            on matrix units; 0 on a device without.
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
        _check_binding(context, "the packed weight", weight.packed.nbytes)
        _check_binding(context, "the scales", weight.scales.nbytes)
        self.exponent = _exponent(weight.scales) if context.matrix_units else 0
        self.readers: set[str] = set()
        self.bind_groups: BindGroups = {}
        self.scales = _upload(context, "scales", weight.scales)
        self._packed: dict[Layout, Any] = {}
        self._views: dict[Layout, Any] = {}

    def packed(
        self, context: Context, weight: Q4Weight, layout: Layout | None
    ) -> tuple[Layout, Any]:
        """The layout used and the resource to bind for it, uploaded when first asked for.

        Args:
            context: that of this device.
            weight: the weight this is a copy of.
            layout: None for the one that is there, else the default one.
        """
        used = layout if layout is not None else next(iter(self._packed), DEFAULT_LAYOUT)
        if used not in self._packed:
            packed = self._make(context, weight, used)
            self._views[used] = packed.create_view() if used == "blocks_texture2d" else packed
            self._packed[used] = packed
        return used, self._views[used]

    @property
    def nbytes(self) -> int:
        """Bytes held on the device: packed (in every layout asked for) and scales."""
        return sum(map(_resource_bytes, [*self._packed.values(), self.scales]))

    @property
    def resources(self) -> list[Any]:
        """The buffers and textures held, the scales last."""
        return [*self._packed.values(), self.scales]

    def describe(self) -> str:
        """One line: adapter, layouts, bytes, readers."""
        readers = ", ".join(sorted(self.readers)) or "nothing yet"
        layouts = " and ".join(self._packed) or "no packed data"
        return f"{self.adapter_summary}: {layouts}, {self.nbytes:,} bytes, read by {readers}"

    def _make(self, context: Context, weight: Q4Weight, layout: Layout) -> Any:
        if layout == "rows":
            return _upload(context, "packed rows", weight.packed_as("linear"))
        if layout == "rows_embedding":
            return _upload(context, "packed rows", weight.packed_as("embedding"))
        rows = self._packed.get("rows")
        if rows is None:
            rows = _upload(context, "rows to pack", weight.packed_as("linear"))
        return _pack(context, self.shape, rows, layout)


def _exponent(scales: NDArray[Any]) -> int:
    """e of the power of two that brings the largest of ``scales`` to 2^11 … 2^12.

    Eight times that, the largest weight, is within half precision, and a scale may be 2^26 times
    smaller before its weights become subnormal there.
    """
    bits = np.dtype(f"u{scales.itemsize}")
    magnitudes = scales.view(bits) & bits.type(np.iinfo(bits).max >> 1)
    largest = float(magnitudes.max().view(scales.dtype))
    if not 0 < largest < np.inf:
        return 0
    return int(np.clip(12 - np.frexp(largest)[1], -126, 126))


def _upload(context: Context, label: str, array: NDArray[Any]) -> Any:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    size = data.nbytes + -data.nbytes % 4
    buffer = context.create_buffer(f"wgpu_q4 {label}", size, "STORAGE", "COPY_DST", "COPY_SRC")
    queue = context.device.queue
    for start in range(0, data.nbytes, _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        if chunk.nbytes % 4:
            chunk = np.pad(chunk, (0, -chunk.nbytes % 4))
        queue.write_buffer(buffer, start, chunk)
        queue.submit([])
    return buffer


def _pack(context: Context, shape: MatrixShape, rows: Any, layout: Layout) -> Any:
    strips, quads = -(-shape.vocab // 8), shape.embed_dim // 4
    if layout == "blocks_texture2d":
        side = context.limits["max-texture-dimension-2d"]
        if max(strips, quads) > side:
            raise DeviceLimitError(
                f"a {quads} × {strips} texture for this weight exceeds {side} × {side}, the limit "
                f"of {context.adapter_summary}; use layout='blocks_buffer' or 'rows'"
            )
        usages = context.implementation.TextureUsage
        target = context.device.create_texture(
            label="wgpu_q4 packed blocks",
            size=(quads, strips, 1),
            format="rgba32sint",
            usage=int(usages.STORAGE_BINDING) | int(usages.TEXTURE_BINDING) | int(usages.COPY_SRC),
        )
        resource = target.create_view()
    else:
        nbytes = strips * quads * 16
        _check_binding(context, "the packed weight in blocks", nbytes)
        resource = target = context.create_buffer(
            "wgpu_q4 packed blocks", nbytes, "STORAGE", "COPY_SRC"
        )
    encoder = context.device.create_command_encoder()
    context.encode(
        encoder, plan_pack(shape, layout, context.limits), {"t_out": resource, "t_weight": rows}
    )
    context.device.queue.submit([encoder.finish()])
    return target


def _check_binding(context: Context, what: str, nbytes: int) -> None:
    if nbytes > context.largest_binding:
        raise DeviceLimitError(
            f"{what} takes {nbytes:,} bytes in one binding; {context.adapter_summary} allows "
            f"{context.largest_binding:,}. Use a device that allows more; a device made with "
            f"wgpu_q4.request_device() has all that its adapter offers"
        )


def _resource_bytes(resource: Any) -> int:
    if hasattr(resource, "width"):
        return int(resource.width) * int(resource.height) * 16
    return int(resource.size)
