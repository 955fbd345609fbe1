"""What the kernels of a decoder are planned for: matrices of either type, and heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wgpu_q4.kernels.dispatch import MatrixShape
from wgpu_q4.kernels.traits import HalfSupport

WeightType = Literal["q4gsw", "float16"]
"""The numbers of a layer's matrices."""

CacheDtype = Literal["float16", "float32"]
"""The numbers of the cache of keys and values."""

Activation = Literal["silu", "gelu"]
"""What is done to the gate of a gated linear unit."""

Source = Literal["embedding", "add", "add_normed"]
"""What a row of the residual stream becomes before it is normalized."""

Epilogue = Literal["store", "add", "glu", "best"]
"""What a GEMV does with its product."""


@dataclass(frozen=True)
class Matrix:
    """A weight ``[V, K]``: its shape, and its type.

    Attributes:
        shape: V, K and G; for float16, G is 32 and means nothing.
        type: the type of its numbers.
    """

    shape: MatrixShape
    type: WeightType

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers, without scales."""
        size = self.shape.vocab * self.shape.embed_dim
        return size // 2 if self.type == "q4gsw" else size * 2


@dataclass(frozen=True)
class HeadShape:
    """The heads of an attention layer and the cache of their keys and values.

    Attributes:
        heads, kv_heads: query heads, and heads of keys and values.
        head_dim: columns of a head.
        capacity: positions that the cache holds.
        cache: the type of its numbers.
    """

    heads: int
    kv_heads: int
    head_dim: int
    capacity: int
    cache: CacheDtype

    @property
    def constants(self) -> dict[str, int]:
        """The pipeline constants of ``decoder/head_shape.wgsl``."""
        return {
            "HEADS": self.heads,
            "KV_HEADS": self.kv_heads,
            "HEAD_DIM": self.head_dim,
            "CAPACITY": self.capacity,
        }

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys, and of the values, of one layer."""
        size = 2 if self.cache == "float16" else 4
        return self.kv_heads * self.head_dim * self.capacity * size

    @property
    def columns(self) -> int:
        """Columns of queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim


def two_halves_pieces(half_support: HalfSupport) -> tuple[str, ...]:
    """Return the pieces that convert two halves of a word at a time."""
    if half_support.subnormals:
        return ("decoder/two_halves_native",)
    return ("half/integer", "decoder/two_halves_integer")


def float_bits(value: float) -> int:
    """Return the bits of ``value`` in float32, as the kernels' constants have it."""
    return int(np.float32(value).view(np.uint32))
