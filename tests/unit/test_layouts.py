"""How nibbles lie in bytes and in blocks.

The block layout has no reference in Python, so its oracle is the definition, element by element;
the oracle itself is checked on bytes written by hand.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.matrices import Shape, every_shape, random_packed
from wgpu_q4.errors import FormatError
from wgpu_q4.format import blocks_to_rows, repack, rows_to_blocks, unpack
from wgpu_q4.format.parallel import for_row_ranges

# Nibble orders


def test_nibble_orders_by_hand() -> None:
    values = np.arange(1, 9, dtype=np.uint8)[None]
    linear = np.array([[0x21, 0x43, 0x65, 0x87]], np.uint8)
    embedding = np.array([[0x12, 0x34, 0x56, 0x78]], np.uint8)
    np.testing.assert_array_equal(unpack(linear, "linear"), values, strict=True)
    np.testing.assert_array_equal(unpack(embedding, "embedding"), values, strict=True)
    np.testing.assert_array_equal(repack(linear, "linear", "embedding"), embedding, strict=True)
    np.testing.assert_array_equal(repack(embedding, "embedding", "linear"), linear, strict=True)


@pytest.mark.usefixtures("ranges")
def test_repack_keeps_what_it_need_not_change_and_reads_any_strides() -> None:
    packed = random_packed(Shape(257, 40, 8))
    assert repack(packed, "linear", "linear") is packed
    view = packed[::-3, 1::2]
    once = repack(view, "linear", "embedding")
    np.testing.assert_array_equal(unpack(once, "embedding"), unpack(view, "linear"))
    np.testing.assert_array_equal(repack(once, "embedding", "linear"), view, strict=True)


# Blocks


def blocks_by_definition(values: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """``[V, K]`` nibbles as blocks, one element at a time."""
    vocab, embed_dim = values.shape
    blocks = np.zeros((-(-vocab // 8), embed_dim // 4, 4), np.uint32)

    def nibble(row: int, column: int) -> int:
        return int(values[row, column]) if row < vocab else 0

    for n8 in range(blocks.shape[0]):
        for k4 in range(blocks.shape[1]):
            for r in range(4):
                word = 0
                for j in range(4):
                    low = nibble(8 * n8 + r, 4 * k4 + j)
                    high = nibble(8 * n8 + 4 + r, 4 * k4 + j)
                    word |= (low | high << 4) << (8 * j)
                blocks[n8, k4, r] = word
    return blocks


def test_a_block_by_hand() -> None:
    # Row n holds n in its first four columns and 15 − n in the others.
    rows = np.arange(8, dtype=np.uint8)[:, None]
    values = np.hstack([np.repeat(rows, 4, axis=1), np.repeat(15 - rows, 4, axis=1)])
    first = [0x40404040, 0x51515151, 0x62626262, 0x73737373]
    second = [0xBFBFBFBF, 0xAEAEAEAE, 0x9D9D9D9D, 0x8C8C8C8C]
    packed = (values[:, 0::2] | values[:, 1::2] << 4).astype(np.uint8)
    np.testing.assert_array_equal(blocks_by_definition(values), [[first, second]])
    np.testing.assert_array_equal(rows_to_blocks(packed), [[first, second]])
    # Byte j is column 4·k4 + j.
    single = np.array([[1, 2, 3, 4]], np.uint8)
    np.testing.assert_array_equal(blocks_by_definition(single), [[[0x04030201, 0, 0, 0]]])
    np.testing.assert_array_equal(
        rows_to_blocks(np.array([[0x21, 0x43]], np.uint8)), [[[0x04030201, 0, 0, 0]]]
    )


@every_shape
@pytest.mark.usefixtures("ranges")
def test_blocks_are_as_defined_and_come_back(shape: Shape) -> None:
    packed = random_packed(shape)
    blocks = rows_to_blocks(packed)
    expected = blocks_by_definition(unpack(packed, "linear"))
    np.testing.assert_array_equal(blocks, expected, strict=True)
    np.testing.assert_array_equal(blocks_to_rows(blocks, shape.vocab), packed, strict=True)


def test_blocks_of_any_strides() -> None:
    packed = random_packed(Shape(40, 96, 8))
    view = packed[::3, ::2]
    np.testing.assert_array_equal(rows_to_blocks(view), rows_to_blocks(view.copy()))
    blocks = rows_to_blocks(packed)
    twice = np.repeat(blocks, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(blocks_to_rows(twice, 40), packed)


# Row ranges


@pytest.mark.parametrize("rows", [0, 1, 7, 64, 65])
def test_ranges_cover_every_row_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpu_q4.format.parallel.RANGE_BYTES", 100)
    visits = np.zeros(rows, int)
    starts: list[int] = []

    def visit(start: int, stop: int) -> None:
        starts.append(start)
        visits[start:stop] += 1

    for_row_ranges(rows, 10, visit)
    assert (visits == 1).all()


# Bad input


def test_blocks_need_whole_columns_and_the_right_number_of_rows() -> None:
    with pytest.raises(FormatError, match="K = 6 is not a multiple of 4"):
        rows_to_blocks(np.zeros((8, 3), np.uint8))
    blocks = np.zeros((2, 6, 4), np.uint32)
    for vocab in (8, 17):
        with pytest.raises(FormatError, match=rf"ceil\({vocab}/8\), K/4, 4\], not \[2, 6, 4\]"):
            blocks_to_rows(blocks, vocab)
    with pytest.raises(FormatError, match=r"not \[2, 4, 6\]"):
        blocks_to_rows(blocks.reshape(2, 4, 6), 16)
