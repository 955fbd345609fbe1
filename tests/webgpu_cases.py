"""Cases of the WGSL for ExecuTorch's WebGPU backend, each of which takes a `WebGPUHost`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cases import ONE_GROUP, PRIME, TINY, WIDE, Shape
from tools.webgpu_backend import WebGPUHost
from wgpu_q4 import Q4Weight, reference

UNTOUCHED = np.uint32(0x7FC0BEEF)  # a NaN that no arithmetic makes

Case = Callable[[WebGPUHost], None]


@dataclass(frozen=True)
class Matrix:
    """What the backend is given; unlike a `Q4Weight`, with groups of any size.

    Attributes:
        packed: uint8 ``[V, K/2]``.
        scales: float32 ``[V, K/G]``.
        linear: an even column is in the low nibble; else in the high one.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    linear: bool = True

    @classmethod
    def random(cls, shape: Shape, linear: bool = True) -> Matrix:
        rng = np.random.default_rng(7)
        packed = rng.integers(0, 256, (shape.vocab, shape.embed_dim // 2), np.uint8)
        scales = rng.uniform(0.005, 0.02, (shape.vocab, shape.embed_dim // shape.group_size))
        scales *= rng.choice([-1, 1], scales.shape)
        return cls(packed, scales.astype(np.float32), linear)

    @property
    def vocab(self) -> int:
        return int(self.packed.shape[0])

    @property
    def embed_dim(self) -> int:
        return 2 * int(self.packed.shape[1])

    @property
    def group_size(self) -> int:
        return self.embed_dim // int(self.scales.shape[1])

    def values(self) -> NDArray[np.float64]:
        """``(u − 8) · scale``, exactly."""
        low, high = self.packed & 15, self.packed >> 4
        pair = (low, high) if self.linear else (high, low)
        nibbles = np.stack(pair, axis=-1).reshape(self.vocab, -1).astype(np.float64)
        return (nibbles - 8) * np.repeat(self.scales.astype(np.float64), self.group_size, axis=1)

    def rows(self, ids: NDArray[Any]) -> NDArray[np.float32]:
        """The embedding: a product is rounded once."""
        part = Matrix(self.packed[ids], self.scales[ids], self.linear)
        return part.values().astype(np.float32)


# The embedding


def embed(
    host: WebGPUHost, weight: Matrix, ids: NDArray[np.int32], room: int = 0
) -> NDArray[np.float32]:
    """The result for ``ids``; the buffers have room for more, which must stay as it is."""
    values = (ids.size + room) * weight.embed_dim
    out = host.buffer(np.full(values, UNTOUCHED))
    step = host.embedding(
        out,
        host.buffer(np.concatenate([ids, np.zeros(room, np.int32)])),
        host.buffer(weight.packed),
        host.buffer(weight.scales),
        count=ids.size,
        embed_dim=weight.embed_dim,
        group_size=weight.group_size,
        is_linear=weight.linear,
    )
    found = host.run(step, out).reshape(-1, weight.embed_dim)
    assert (found[ids.size :].view(np.uint32) == UNTOUCHED).all(), "written past the result"
    return found[: ids.size]


def same_bits(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def check_embedding(shape: Shape, count: int, linear: bool, host: WebGPUHost) -> None:
    weight = Matrix.random(shape, linear)
    ids = np.random.default_rng(count).integers(0, shape.vocab, count, np.int32)
    ids[0], ids[-1] = 0, shape.vocab - 1
    same_bits(embed(host, weight, ids), weight.rows(ids))


def check_outside(linear: bool, host: WebGPUHost) -> None:
    """Positive zeros, whatever stands in row 0, which is read instead."""
    weight = Matrix.random(Shape(13, 96, 32), linear)
    weight.scales[0] = np.inf
    ids = np.array([12, 13, -1, -(2**31), 2**31 - 1, 1 << 20, 3], np.int32)
    expected = np.zeros((7, 96), np.float32)
    expected[[0, 6]] = weight.rows(np.array([12, 3]))
    same_bits(embed(host, weight, ids), expected)


def check_shrunk(host: WebGPUHost) -> None:
    """Fewer ids than the buffers were made for, as a dynamic shape has it."""
    weight = Matrix.random(Shape(22, 64, 32), linear=False)
    ids = np.array([21, 0, 5], np.int32)
    same_bits(embed(host, weight, ids, room=50), weight.rows(ids))


EMBEDDINGS = (
    (Shape(22, 96, 32), 30),  # V % 8 ≠ 0
    (Shape(13, 32, 32), 1),  # one id, one group, a quarter of a workgroup's first store
    (Shape(257, 160, 160), 7),  # V prime, one group a row
    (Shape(1, 2048, 32), 5),  # several workgroups
    (Shape(50, 64, 8), 9),
    (Shape(37, 96, 6), 11),  # a quad has columns of two groups
    (Shape(7, 32, 1), 3),  # each column has its own
    (Shape(40, 1024, 128), 129),  # the last workgroup is not full
)


# The linear op


def multiply(
    host: WebGPUHost,
    x: NDArray[np.float32],
    weight: Matrix,
    bias: NDArray[np.float32] | None = None,
    padding: int = 0,
) -> NDArray[np.float32]:
    """The result; rows of the scales are longer than V by ``padding``, buffers by more."""
    vocab = weight.vocab
    scales = np.full((weight.scales.shape[1], vocab + padding), np.nan, np.float32)
    scales[:, :vocab] = weight.scales.T
    out = host.buffer(np.full(vocab + 5, UNTOUCHED))
    step = host.linear(
        out,
        host.buffer(x),
        host.buffer(weight.packed),
        host.buffer(scales),
        None if bias is None else host.buffer(bias),
        vocab=vocab,
        embed_dim=weight.embed_dim,
        group_size=weight.group_size,
        padded_vocab=vocab + padding,
    )
    found = host.run(step, out)
    assert (found[vocab:].view(np.uint32) == UNTOUCHED).all(), "written past the result"
    return found[:vocab]


def check_linear(shape: Shape, with_bias: bool, padding: int, host: WebGPUHost) -> None:
    weight, rng = Matrix.random(shape), np.random.default_rng(3)
    x = rng.standard_normal(shape.embed_dim).astype(np.float32)
    bias = rng.standard_normal(shape.vocab).astype(np.float32) if with_bias else None
    found = multiply(host, x, weight, bias, padding).astype(np.float64)
    as_weight = Q4Weight(weight.packed, weight.scales)
    error = np.abs(found - reference.linear(x, as_weight, bias))
    bound = reference.linear_bound(x, as_weight, bias)
    assert (error <= bound).all(), f"{(error / bound).max()} times the bound"


def check_integers(shape: Shape, host: WebGPUHost) -> None:
    """Small integers, and scales that are powers of two: every order of summation is exact."""
    weight, rng = Matrix.random(shape), np.random.default_rng(4)
    weight.scales[:] = np.exp2(rng.integers(-2, 3, weight.scales.shape))
    x = rng.integers(-8, 9, shape.embed_dim).astype(np.float32)
    expected = (weight.values() @ x).astype(np.float32)
    np.testing.assert_array_equal(multiply(host, x, weight), expected)


def check_column(column: int, host: WebGPUHost) -> None:
    """A single one in x reads a column of the matrix, with no rounding."""
    weight = Matrix.random(Shape(101, 2144, 16))
    x = np.zeros(2144, np.float32)
    x[column] = 1
    found = multiply(host, x, weight)
    np.testing.assert_array_equal(found, weight.values()[:, column].astype(np.float32))


class SmallGrid(WebGPUHost):
    """On a device that allows few workgroups."""

    def _limit(self, name: str) -> int:
        return 5 if name == "workgroups-per-dimension" else super()._limit(name)


def check_cut_grid(shape: Shape, host: WebGPUHost) -> None:
    """Workgroups have several tiles each."""
    check_linear(shape, True, 0, SmallGrid(host.device, host.folder))


LINEARS = (
    TINY,
    PRIME,
    ONE_GROUP,
    WIDE,
    Shape(12, 64, 32),
    Shape(131, 2048, 32),  # each lane has a word of each row, and half of the lanes none
    Shape(37, 2208, 48),  # two turns; groups lie across their edge
    Shape(9, 4104, 72),
    Shape(17, 8192, 8),  # 64 groups a turn are 64 words
    Shape(8209, 72, 24),  # large, and V prime
    Shape(8192, 2208, 48),
)


def cases() -> Iterator[tuple[str, Case]]:
    """Every case by name."""
    for (shape, count), linear in product(EMBEDDINGS, (True, False)):
        name = f"embedding {shape} {count}{' linear' if linear else ''}"
        yield name, partial(check_embedding, shape, count, linear)
    for linear in (True, False):
        yield f"outside{' linear' if linear else ''}", partial(check_outside, linear)
    yield "shrunk", check_shrunk
    for shape in LINEARS:
        for with_bias, padding in ((False, 0), (True, 3)):
            name = f"linear {shape}{' bias' if with_bias else ''}"
            yield name, partial(check_linear, shape, with_bias, padding)
    for shape in (PRIME, Shape(8209, 136, 8)):
        yield f"integers {shape}", partial(check_integers, shape)
    for shape in (PRIME, Shape(8209, 72, 24)):
        yield f"cut grid {shape}", partial(check_cut_grid, shape)
    for column in (0, 2, 3, 9, 12, 1021, 1023, 1024, 1030, 2143):  # each nibble of a word
        yield f"column {column}", partial(check_column, column)


CASES = dict(cases())

LONG = ("linear 8192x2208g48", "linear 8192x2208g48 bias", "integers 8209x136g8")
"""Those that take SwiftShader seconds, and reach no statement that others do not."""


def outcome(case: Case, host: WebGPUHost) -> str:
    """Why a case fails, or an empty string."""
    try:
        case(host)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
