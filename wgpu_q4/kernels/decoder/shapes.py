"""What the kernels of a decoder are planned for: matrices of each type, and heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wgpu_q4.kernels.dispatch import MatrixShape
from wgpu_q4.kernels.traits import HalfSupport

WeightType = Literal["q4gsw", "affine4", "affine8", "float16"]
"""The numbers of a layer's matrices.

The affine ones are integers of 4 or 8 bits, with a scale and an offset for each 32 columns."""

WEIGHT_BITS: Mapping[WeightType, int] = {"q4gsw": 4, "affine4": 4, "affine8": 8, "float16": 16}
"""Bits of a number, without scales and offsets."""

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
        shape: V, K and G, which is 32 but for q4gsw.
        type: the type of its numbers.
    """

    shape: MatrixShape
    type: WeightType

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers, without scales and offsets."""
        return self.shape.vocab * self.shape.embed_dim * WEIGHT_BITS[self.type] // 8

    @property
    def pair_bytes(self) -> int:
        """Bytes of scales and offsets, if the matrix is affine; else 0."""
        is_affine = self.type in ("affine4", "affine8")
        return self.shape.vocab * self.shape.embed_dim // 32 * 4 if is_affine else 0


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
