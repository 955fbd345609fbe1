"""Blocks of GGUF types with an offset, against the gguf library."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from wgpu_q4 import FormatError, Q4Weight
from wgpu_q4.decoder import AffineMatrix
from wgpu_q4.decoder.affine import BLOCKS, from_blocks
from wgpu_q4.decoder.weights import stack

SHAPES = ((1, 32), (7, 96), (65, 608))


def blocks_of(kind: str, vocab: int, embed_dim: int) -> NDArray[np.uint8]:
    """Random bytes, whose scales and offsets are any finite halves that keep 128 scales finite."""
    rng = np.random.default_rng(vocab)
    size = BLOCKS[kind][0]
    blocks = np.frombuffer(rng.bytes(vocab * embed_dim // 32 * size), np.uint8).copy()
    blocks = blocks.reshape(vocab, -1, size)
    blocks[..., 1 : 4 if kind == "Q4_1" else 2 : 2] &= 0xDB  # exponents at most 22: below 256
    return blocks.reshape(vocab, -1)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_is_that_of_the_file(kind: str, shape: tuple[int, int]) -> None:
    data = blocks_of(kind, *shape)
    matrix = from_blocks(kind, data)
    assert matrix.shape == shape
    assert matrix.bits == int(kind[1])
    theirs = gguf.dequantize(data, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(matrix.dequantize(), theirs)
    assert np.unique(theirs).size > 10
    order = np.random.default_rng(0).permutation(shape[0])
    assert np.array_equal(matrix.take(order).dequantize(), theirs[order])


@pytest.mark.parametrize(("kind", "place"), [("Q4_1", 0), ("Q4_1", 2), ("Q8_0", 0)])
@pytest.mark.parametrize("half", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(kind: str, place: int, half: float) -> None:
    data = blocks_of(kind, 3, 64)
    data[2, place : place + 2] = np.array([half], np.float16).view(np.uint8)
    with pytest.raises(FormatError, match="a scale or an offset of a matrix is not finite"):
        from_blocks(kind, data)


def test_matrices_of_one_type_are_stacked_as_they_are() -> None:
    parts = [from_blocks("Q4_1", blocks_of("Q4_1", rows, 64)) for rows in (5, 3)]
    whole = stack(parts)
    assert isinstance(whole, AffineMatrix)
    values = np.concatenate([part.dequantize() for part in parts])
    assert np.array_equal(whole.dequantize(), values)


@pytest.mark.parametrize(
    "other",
    [
        from_blocks("Q8_0", blocks_of("Q8_0", 3, 64)),
        Q4Weight.quantize(np.eye(3, 64, dtype=np.float32)),
        np.ones((3, 64), np.float16),
    ],
    ids=["8 bits", "q4gsw", "float16"],
)
def test_matrices_of_several_types_are_rounded(other: AffineMatrix | Q4Weight) -> None:
    data = blocks_of("Q4_1", 5, 64)
    whole = stack([from_blocks("Q4_1", data), other])
    assert isinstance(whole, np.ndarray)
    assert whole.dtype == np.float16
    exact = gguf.dequantize(data, gguf.GGMLQuantizationType.Q4_1)
    assert np.array_equal(whole[:5], exact.astype(np.float16))
