"""Shapes and matrices on which the tests of the format agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shape:
    vocab: int
    embed_dim: int
    group_size: int

    def __str__(self) -> str:
        return f"{self.vocab}x{self.embed_dim}g{self.group_size}"


SHAPES = [
    Shape(1, 8, 8),  # the smallest there is
    Shape(1, 64, 32),  # one row: seven rows of a block are padding
    Shape(8, 32, 32),  # one whole block strip, G = K
    Shape(7, 24, 8),  # V below a block, K not a power of two
    Shape(13, 24, 24),  # prime V, G = K = 24
    Shape(9, 96, 24),  # one row past a block, several groups of 24
    Shape(257, 40, 8),  # prime V, K/4 odd
    Shape(100, 128, 32),  # upstream's own test shape
    Shape(3, 576, 64),  # SmolLM2's K
    Shape(31, 2048, 256),  # Llama's K
]

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def normal(shape: Shape, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((shape.vocab, shape.embed_dim)).astype(np.float32)


def difficult(shape: Shape) -> dict[str, NDArray[np.float32]]:
    """Matrices on which a slightly different rule gives different values."""
    rng = np.random.default_rng(1)
    size = (shape.vocab, shape.embed_dim)
    weight = normal(shape)
    spread = weight * np.exp2(rng.integers(-120, 120, size)).astype(np.float32)
    zero_groups = weight.copy()
    zero_groups.reshape(shape.vocab, -1, shape.group_size)[:, ::2] = 0
    # Steps of half a scale when the group's largest value is 7.5: ties, and the clipped corner.
    ties = rng.integers(-15, 16, size).astype(np.float32) / 2
    ties.reshape(shape.vocab, -1, shape.group_size)[:, :, 0] = 7.5
    constant = np.full(size, 0.3, np.float32)
    constant[-1, -1] = 0.17  # else it would be on a 4-bit grid, and keep its values
    signed_powers = np.exp2(rng.integers(-20, 18, size)) * rng.choice([-1, 1], size)
    return {
        "normal": weight,
        "spread": spread,
        "zeros": np.zeros(size, np.float32),
        "negative zeros": np.full(size, -0.0, np.float32),
        "zero groups": zero_groups,
        "subnormal": weight * np.float32(1e-41),
        "around the smallest scale": weight * np.float32(8e-38),
        "huge": np.clip(weight, -3, 3) * np.float32(1e38),
        "powers of two": signed_powers.astype(np.float32),
        "ties": ties,
        "negated ties": -ties,
        "constant": constant,
    }


def random_packed(shape: Shape, seed: int = 2) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (shape.vocab, shape.embed_dim // 2), np.uint8)
