"""Tensors in 3-D textures, four values to a texel, as ExecuTorch's Vulkan backend keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import DeviceLimitError

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context

_ROW_ALIGNMENT = 256
"""Bytes.  In a buffer to which a texture is copied, each row starts at a multiple of this."""

_TEXEL_BYTES = {"rgba32sint": 16, "rgba32float": 16, "rgba16float": 8}


def pack_width(values: NDArray[Any]) -> NDArray[Any]:
    """Return ``[z, y, w]`` as texels ``[z, y, ceil(w/4), 4]``, padded with zeros."""
    depth, height, width = values.shape
    padded = np.zeros((depth, height, -(-width // 4) * 4), values.dtype)
    padded[..., :width] = values
    return padded.reshape(depth, height, -1, 4)


class Texture3d:
    """A texture of ``(width, height, depth)`` texels of four components."""

    def __init__(
        self, context: Context, size: tuple[int, int, int], texel: str, label: str
    ) -> None:
        side = context.limits["max-texture-dimension-3d"]
        if max(size) > side:
            raise DeviceLimitError(
                f"a {size[0]} × {size[1]} × {size[2]} texture for {label} exceeds {side} in a "
                f"dimension, the limit of {context.adapter_summary}; use storage='buffer'"
            )
        usages = context.implementation.TextureUsage
        names = ["COPY_DST", "TEXTURE_BINDING"] if "int" in texel else ["COPY_SRC"]
        if "float" in texel:
            names.append("STORAGE_BINDING")
        self._context = context
        self._size = size
        self._texel_bytes = _TEXEL_BYTES[texel]
        self._texture = context.device.create_texture(
            label=f"wgpu_q4 {label}",
            size=size,
            dimension="3d",
            format=texel,
            usage=sum(int(getattr(usages, name)) for name in names),
        )
        self.view = self._texture.create_view()

    def write(self, texels: NDArray[Any]) -> None:
        """Fill the texture from ``[depth, height, width, 4]``."""
        width, height, _ = self._size
        self._context.device.queue.write_texture(
            {"texture": self._texture},
            np.ascontiguousarray(texels),
            {"bytes_per_row": width * self._texel_bytes, "rows_per_image": height},
            self._size,
        )

    def read(self, encoder: Any, out: NDArray[Any]) -> None:
        """Finish ``encoder``, run it, and fill ``out`` ``[depth, height, 4 · width]``."""
        read_texture(self._context, encoder, self._texture, self._size, out)


def read_texture(
    context: Context, encoder: Any, texture: Any, size: tuple[int, int, int], out: NDArray[Any]
) -> None:
    """Finish ``encoder``, run it, and fill ``out`` with the bytes of a texture.

    Args:
        context: that of the device.
        encoder: what was recorded before.
        texture: of ``size``, made with the usage ``COPY_SRC``.
        size: ``(width, height, depth)`` in texels.
        out: ``[depth, height, …]``.
    """
    _, height, depth = size
    row_bytes = out.nbytes // (depth * height)
    pitch = -(-row_bytes // _ROW_ALIGNMENT) * _ROW_ALIGNMENT
    rows = np.empty((depth, height, pitch), np.uint8)
    linear = context.scratch.buffer("texture rows", rows.nbytes, "COPY_SRC", "COPY_DST")
    encoder.copy_texture_to_buffer(
        {"texture": texture},
        {"buffer": linear, "bytes_per_row": pitch, "rows_per_image": height},
        size,
    )
    context.read(encoder, linear, rows)
    out[:] = rows[..., :row_bytes].view(out.dtype).reshape(out.shape)
