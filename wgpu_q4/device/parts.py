"""The parts of a weight on a device: as many of its rows as one binding holds, and their scales.

WebGPU promises 128 MiB for each storage binding, and some matrices are larger.  The ops then run
once for each part, in one submission: each writes its own rows of an embedding, or its own columns
of the logits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.pipelines import BufferRange
from wgpu_q4.device.upload import pack_blocks, upload
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.format import Convention, ScalesDtype, repack
from wgpu_q4.kernels import Layout, MatrixShape
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context
    from wgpu_q4.device.pipelines import BindGroups

ROW_MULTIPLE = 64
"""Rows of every part but the last are a multiple of this.

The columns of a part in a float32 result then begin at a multiple of 256 bytes, and WebGPU promises
that a binding may begin there.  Strips of 8 rows, and the 64 outputs of a tile, stay whole."""


class DevicePart:
    """Rows of a `Q4Weight` on one device.

    Attributes:
        first_row: the row of the weight that is the first one here.
        shape: V of this part, K, G and the dtype of the scales.
        is_whole: True if the weight has no other part.
        scales: the buffer of scales ``[V, K/G]``.
        packed: the buffers and textures of packed bytes, by their layouts.
        bind_groups: the bind groups that bind them, see `wgpu_q4.device.pipelines`.
    """

    def __init__(self, context: Context, weight: Q4Weight, rows: slice) -> None:
        scales = weight.scales[rows]
        self.first_row, self._rows = int(rows.start), rows
        self.is_whole = len(scales) == weight.shape[0]
        self.shape = replace(shape_of(weight), vocab=len(scales))
        self.packed: dict[Layout, Any] = {}
        self.bind_groups: BindGroups = {}
        self.scales = upload(context, "scales", scales)
        self._bindings: dict[Layout, dict[str, Any]] = {}
        self._place: dict[str, Any] = {}
        if not self.is_whole:
            place = np.array([self.first_row, 0, 0, 0], np.int32)
            self._place["part"] = upload(context, "part", place, "UNIFORM")

    def bindings(self, context: Context, weight: Q4Weight, layout: Layout) -> dict[str, Any]:
        """Return the resources that a kernel binds of this part, by the names of the bindings.

        Args:
            context: that of this device.
            weight: the weight that this is a copy of.
            layout: how its packed bytes are held; they are uploaded when first asked for.
        """
        bindings = self._bindings.get(layout)
        if bindings is None:
            packed = self.packed[layout] = self._make(context, weight, layout)
            view = packed.create_view() if layout == "blocks_texture2d" else packed
            bindings = {"t_weight": view, "t_scales": self.scales, **self._place}
            self._bindings[layout] = bindings
        return bindings

    def columns_of(self, rows: Any, context: Context) -> Any:
        """Return what to bind of float32 rows ``[…, V of the whole weight]``: a buffer, or a range.

        It begins at this part's column of the first row.
        """
        if self.is_whole:
            return rows
        start, largest = self.first_row * 4, context.largest_binding // 4 * 4
        nbytes = min(rows.size - start, largest)
        if isinstance(rows, BufferRange):
            return BufferRange(rows.buffer, rows.offset + start, nbytes)
        return BufferRange(rows, start, nbytes)

    def _make(self, context: Context, weight: Q4Weight, layout: Layout) -> Any:
        if layout == "rows_embedding":
            return upload(context, "packed rows", self._packed_as(weight, "embedding"))
        if layout == "rows":
            return upload(context, "packed rows", self._packed_as(weight, "linear"))
        rows = self.packed.get("rows")
        if rows is None:
            rows = upload(context, "rows to pack", self._packed_as(weight, "linear"))
        return pack_blocks(context, self.shape, rows, layout)

    def _packed_as(self, weight: Q4Weight, convention: Convention) -> NDArray[np.uint8]:
        return repack(weight.packed[self._rows], weight.convention, convention)


def shape_of(weight: Q4Weight) -> MatrixShape:
    """Return the shape of a whole weight."""
    vocab, embed_dim = weight.shape
    scales: ScalesDtype = "float16" if weight.scales.dtype == np.float16 else "float32"
    return MatrixShape(vocab, embed_dim, weight.group_size, scales)


def rows_of_a_part(context: Context, shape: MatrixShape) -> int:
    """Return how many rows each part of a weight has on a device, but for the last.

    All parts but the last have the same size, so that they run the same compiled kernels.

    Raises:
        DeviceLimitError: a binding does not hold `ROW_MULTIPLE` rows.
    """
    vocab, groups = shape.vocab, shape.embed_dim // shape.group_size
    row_bytes = max(shape.embed_dim // 2, groups * np.dtype(shape.scales).itemsize)
    most = context.largest_binding // row_bytes
    if vocab <= most:
        return vocab
    most -= most % ROW_MULTIPLE
    if most < ROW_MULTIPLE:
        raise DeviceLimitError(
            f"{ROW_MULTIPLE} rows of the weight take {ROW_MULTIPLE * row_bytes:,} bytes in one "
            f"binding; {context.adapter_summary} allows {context.largest_binding:,}. Use a device "
            f"that allows more; a device made with wgpu_q4.request_device() has all that its "
            f"adapter offers"
        )
    rows = -(-vocab // -(-vocab // most))
    return rows + -rows % ROW_MULTIPLE
