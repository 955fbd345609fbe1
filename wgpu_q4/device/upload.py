"""Upload the bytes of a weight to a device, as they are, or pack them into blocks there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.pipelines import encode
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import Layout, MatrixShape, plan_pack

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context

_CHUNK_BYTES = 16 << 20
"""Bytes handed to the queue at a time, which bounds the staging memory of a large upload.

A mapped file goes to an H200 in 0.03 s in chunks of 4 or 16 MiB, 0.04 s in chunks of 64 MiB, and
0.05 s through a buffer that is mapped when it is made."""


def upload(context: Context, label: str, array: NDArray[Any], usage: str = "STORAGE") -> Any:
    """Return a new buffer with the bytes of ``array``, padded to a multiple of 4."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    size = data.nbytes + -data.nbytes % 4
    buffer = context.create_buffer(f"wgpu_q4 {label}", size, usage, "COPY_DST", "COPY_SRC")
    queue = context.device.queue
    for start in range(0, data.nbytes, _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        if chunk.nbytes % 4:
            chunk = np.pad(chunk, (0, -chunk.nbytes % 4))
        queue.write_buffer(buffer, start, chunk)
        queue.submit([])
    return buffer


def pack_blocks(context: Context, shape: MatrixShape, rows: Any, layout: Layout) -> Any:
    """Return a new buffer or texture with a weight in blocks.

    Args:
        context: that of the device.
        shape: of the weight.
        rows: the buffer of its packed rows, linear convention.
        layout: ``"blocks_buffer"`` or ``"blocks_texture2d"``.

    Raises:
        DeviceLimitError: the blocks exceed a texture or a binding.
    """
    strips, quads = -(-shape.vocab // 8), shape.embed_dim // 4
    if layout == "blocks_texture2d":
        side = context.limits["max-texture-dimension-2d"]
        if max(strips, quads) > side:
            raise DeviceLimitError(
                f"a {quads} × {strips} texture for this weight exceeds {side} × {side}, the limit "
                f"of {context.adapter_summary}; force layout='blocks_buffer' or 'rows' instead"
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
        if nbytes > context.largest_binding:  # rows past V make the last strip whole
            raise DeviceLimitError(
                f"the packed weight in blocks takes {nbytes:,} bytes in one binding; "
                f"{context.adapter_summary} allows {context.largest_binding:,}. Force "
                f"layout='rows' instead"
            )
        resource = target = context.create_buffer(
            "wgpu_q4 packed blocks", nbytes, "STORAGE", "COPY_SRC"
        )
    encoder = context.device.create_command_encoder()
    pack = plan_pack(shape, layout, context.limits)
    encode(encoder, [context.pipelines.step(pack, {"t_out": resource, "t_weight": rows})])
    context.device.queue.submit([encoder.finish()])
    return target
