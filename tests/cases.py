"""What the tests of the two ops share: shapes, random matrices, and what counts as equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import Q4Weight
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.adapter import choose_adapter
from wgpu_q4.format import Convention, ScalesDtype


@dataclass(frozen=True)
class Shape:
    """``[V, K]`` in groups of ``G``."""

    vocab: int
    embed_dim: int
    group_size: int

    def __str__(self) -> str:
        return f"{self.vocab}x{self.embed_dim}g{self.group_size}"


# Nothing is left over anywhere: what fails elsewhere and not here is the handling of an edge.
WHOLE = Shape(16, 32, 32)
# One word of weight and, in half precision, half a word of scales: both ends of every buffer.
TINY = Shape(1, 8, 8)
# The last strip of blocks is partly padding; three scales a row, so that half scales of odd rows
# begin in the middle of a word; K = 24 is neither 16 nor 32 times anything.
ODD = Shape(13, 24, 8)
# V is prime and fills no team, strip or tile, but takes several of each; K and G are no powers of
# two, so divisions stay divisions; groups of 24 lie across the 16 columns that the GEMM stages.
PRIME = Shape(257, 72, 24)
# One scale for a whole row.
ONE_GROUP = Shape(50, 40, 40)
# K and G are multiples of 32, as the wide GEMV needs; three loads a row leave a lane of four idle.
WIDE = Shape(101, 96, 32)
# Lanes take several turns along a row, a group lies in several lanes, and V takes three workgroups.
LONG = Shape(131, 2048, 128)


@cache
def random_weight(
    shape: Shape, scales_dtype: ScalesDtype, convention: Convention = "linear"
) -> Q4Weight:
    """Any nibbles, scales of either sign."""
    rng = np.random.default_rng(1)
    packed = rng.integers(0, 256, (shape.vocab, shape.embed_dim // 2), np.uint8)
    scales = rng.uniform(0.5, 2, (shape.vocab, shape.embed_dim // shape.group_size))
    scales *= rng.choice([-0.01, 0.01], scales.shape)
    return Q4Weight(packed, scales.astype(scales_dtype), convention)


def anew(weight: Q4Weight) -> Q4Weight:
    """The same matrix as another object, of which no device has a copy."""
    return Q4Weight(weight.packed, weight.scales, weight.convention)


def some_ids(shape: Shape, size: tuple[int, ...] = (3, 5, 7)) -> NDArray[np.int64]:
    """Ids in no order, many of them repeated, with the first row and the last among them."""
    ids = np.random.default_rng(2).integers(0, shape.vocab, size)
    ids.flat[0], ids.flat[-1] = shape.vocab - 1, 0
    return ids


def random_x(*size: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal(size).astype(np.float32)


def assert_same_bits(result: Any, expected: NDArray[Any]) -> None:
    """The same dtype, shape and bits: −0 is not 0."""
    assert isinstance(result, np.ndarray)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    bits = np.dtype(f"u{expected.itemsize}")
    np.testing.assert_array_equal(result, expected)  # says more where values differ
    np.testing.assert_array_equal(result.view(bits), expected.view(bits))


@contextmanager
def bindings_of(nbytes: int, device: Any = None) -> Iterator[Context]:
    """The context of a device that is told to bind no more than so many bytes.

    A weight that goes there meanwhile goes in parts.
    """
    context = context_for(device)
    limits = context.limits
    context.limits = {**limits, "max-storage-buffer-binding-size": nbytes}
    try:
        yield context
    finally:
        context.limits = limits


def limited_context(limits: Mapping[str, int]) -> Context:
    """The context of a new device that has these limits and no more."""
    adapter = choose_adapter()
    device = adapter.request_device_sync(required_limits={**adapter.limits, **limits})
    context = context_for(device)
    context.limits = {**context.limits, **limits}  # an implementation may grant more than asked
    return context
