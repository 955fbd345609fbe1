"""The buffers of a decoder: its sequence, its cache, and what its kernels hand on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wgpu_q4.decoder.config import Config
from wgpu_q4.decoder.limits import check_binding
from wgpu_q4.device.upload import upload
from wgpu_q4.kernels.decoder import CacheDtype, HeadShape

if TYPE_CHECKING:
    from wgpu_q4.device import Context


class Memory:
    """Every buffer of a decoder but its matrices and gains.

    Attributes:
        heads: the shape of attention and of its cache.
        rows: rows of x that a pass over a prompt takes at most.
        state: the position of the first row, and the number of rows.
        ids: the ids of the sequence, one more than the cache has positions.
        choice: the entry (bits of the logit, id) of the next id.
        logits: float32 ``[V]``, of the last row.
        keys, values: of each layer.
        ropes: a table of angles for each way to rotate heads.
    """

    def __init__(
        self, context: Context, config: Config, capacity: int, rows: int, cache: CacheDtype
    ) -> None:
        self._context = context
        self._buffers: dict[str, Any] = {}
        self.heads = HeadShape(config.heads, config.kv_heads, config.head_dim, capacity, cache)
        self.rows = rows
        check_binding(context, "the cache of a layer's keys", self.heads.cache_bytes)
        check_binding(context, "the logits", config.vocab * 4)
        widest = max(config.qkv_columns, 2 * config.intermediate, config.hidden)
        check_binding(context, f"what {rows} rows of a prompt make", rows * widest * 4)
        self.state = self.make("state", 16)
        self.ids = self.make("ids", (capacity + 1) * 4)
        self.choice = self.make("choice", 8)
        self.logits = self.make("logits", config.vocab * 4)
        self.keys = [
            self.make(f"keys of layer {layer}", self.heads.cache_bytes)
            for layer in range(config.layers)
        ]
        self.values = [
            self.make(f"values of layer {layer}", self.heads.cache_bytes)
            for layer in range(config.layers)
        ]
        self.ropes = [
            upload(context, "angles", rope.table(config.head_dim, capacity))
            for rope in config.ropes
        ]

    def make(self, name: str, nbytes: int) -> Any:
        """Return the buffer of that name, made when first asked for with so many bytes or more."""
        found = self._buffers.get(name)
        if found is None or found.size < nbytes:
            found = self._context.create_buffer(
                f"wgpu_q4 decoder: {name}", nbytes, "STORAGE", "COPY_SRC", "COPY_DST"
            )
            self._buffers[name] = found
        return found

    def uniform(self, name: str) -> Any:
        """Return the uniform buffer of four int32 of that name."""
        found = self._buffers.get(name)
        if found is None:
            found = self._context.create_buffer(
                f"wgpu_q4 decoder: {name}", 16, "UNIFORM", "COPY_DST"
            )
            self._buffers[name] = found
        return found

    @property
    def cache_bytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(int(buffer.size) for buffer in (*self.keys, *self.values))

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        buffers = (*self._buffers.values(), *self.ropes)
        return sum(int(buffer.size) for buffer in buffers)
