"""The format on random matrices: what is taken apart comes together again, of any strides."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.strategies import shapes
from wgpu_q4 import Q4Weight
from wgpu_q4.format import blocks_to_rows, quantize, repack, rows_to_blocks, unpack

seeds = st.integers(0, 2**32 - 1)
steps = st.sampled_from([1, 2, 3, -1, -2])


def random_bytes(seed: int, rows: int, columns: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)


@given(shapes(), seeds, steps, steps)
def test_the_order_of_nibbles_changes_no_value(
    shape: Any, seed: int, rows: int, columns: int
) -> None:
    size = shape.vocab * abs(rows), shape.embed_dim // 2 * abs(columns)
    packed = random_bytes(seed, *size)[::rows, ::columns]
    swapped = repack(packed, "linear", "embedding")
    np.testing.assert_array_equal(unpack(swapped, "embedding"), unpack(packed, "linear"))
    np.testing.assert_array_equal(repack(swapped, "embedding", "linear"), packed)


@given(shapes(), seeds)
def test_blocks_come_back_as_rows(shape: Any, seed: int) -> None:
    packed = random_bytes(seed, shape.vocab, shape.embed_dim // 2)
    np.testing.assert_array_equal(blocks_to_rows(rows_to_blocks(packed), shape.vocab), packed)


@given(shapes(), seeds, st.integers(-40, 40))
def test_a_power_of_two_goes_into_the_scales(shape: Any, seed: int, exponent: int) -> None:
    """Scaling a matrix by a power of two scales its scales, and changes no nibble."""
    matrix = np.random.default_rng(seed).standard_normal((shape.vocab, shape.embed_dim))
    packed, scales = quantize(matrix, shape.group_size, "float32")
    again, scaled = quantize(matrix * 2.0**exponent, shape.group_size, "float32")
    np.testing.assert_array_equal(again, packed)
    np.testing.assert_array_equal(scaled, scales * np.float32(2.0**exponent))


@given(shapes(), seeds, st.data())
def test_one_changed_nibble_is_another_matrix(shape: Any, seed: int, data: st.DataObject) -> None:
    packed = random_bytes(seed, shape.vocab, shape.embed_dim // 2)
    scales = np.ones((shape.vocab, shape.embed_dim // shape.group_size), np.float16)
    weight = Q4Weight(packed, scales)
    assert weight.same_matrix(Q4Weight(repack(packed, "linear", "embedding"), scales, "embedding"))
    changed = packed.copy()
    row = data.draw(st.integers(0, shape.vocab - 1))
    column = data.draw(st.integers(0, shape.embed_dim // 2 - 1))
    changed[row, column] ^= data.draw(st.sampled_from([0x01, 0x80, 0x18]))
    assert not weight.same_matrix(Q4Weight(changed, scales))
