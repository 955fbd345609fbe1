"""The block layout: 4 columns × 8 rows in 16 bytes.

It is what ExecuTorch's Vulkan ``pack_q4_linear_weight`` makes for its linear ops: ``uvec4
block[n8 · K/4 + k4]``, whose component ``r`` (0..3) and byte ``j`` (0..3) hold column ``4·k4 + j``
of two rows: ``8·n8 + r`` in the low nibble, ``8·n8 + 4 + r`` in the high one.  Rows past V, in the
last block, are padding; here they are zero bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.format.parallel import for_row_ranges

BLOCK_ROWS = 8
BLOCK_COLUMNS = 4


def rows_to_blocks(packed: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Blocks of a packed matrix.

    Args:
        packed: uint8 ``[V, K/2]``, linear convention, K a multiple of 4.

    Returns:
        uint32 ``[ceil(V/8), K/4, 4]``, little-endian.
    """
    vocab, half = packed.shape
    if half % 2:
        raise FormatError(f"K = {half * 2} is not a multiple of {BLOCK_COLUMNS}")
    strips = -(-vocab // BLOCK_ROWS)
    blocks = np.empty((strips, half // 2, 4), "<u4")

    def pack_strips(start: int, stop: int) -> None:
        rows = packed[start * BLOCK_ROWS : stop * BLOCK_ROWS]
        missing = (stop - start) * BLOCK_ROWS - rows.shape[0]
        if missing:
            rows = np.concatenate([rows, np.zeros((missing, half), np.uint8)])
        octets = rows.reshape(stop - start, 2, 4, half)
        low, high = octets[:, 0], octets[:, 1]
        # One byte a column, two rows in it: even columns sit in low nibbles, odd ones in high.
        columns = np.empty((stop - start, 4, half, 2), np.uint8)
        columns[..., 0] = (low & 0x0F) | (high << 4)
        columns[..., 1] = (low >> 4) | (high & 0xF0)
        words = columns.reshape(stop - start, 4, half * 2).view("<u4")
        blocks[start:stop] = words.transpose(0, 2, 1)

    for_row_ranges(strips, half * 2 * 4, pack_strips)
    return blocks


def blocks_to_rows(blocks: NDArray[np.uint32], vocab: int) -> NDArray[np.uint8]:
    """The ``[vocab, K/2]`` bytes, linear convention, of ``[ceil(V/8), K/4, 4]`` blocks."""
    strips, quads, components = blocks.shape
    if components != 4 or strips != -(-vocab // BLOCK_ROWS):
        raise FormatError(
            f"blocks must have shape [ceil({vocab}/8), K/4, 4], not {list(blocks.shape)}"
        )
    packed = np.empty((strips * BLOCK_ROWS, quads * 2), np.uint8)
    octets = packed.reshape(strips, 2, 4, quads * 2)

    def unpack_strips(start: int, stop: int) -> None:
        words = np.ascontiguousarray(blocks[start:stop].transpose(0, 2, 1), "<u4")
        columns = words.view(np.uint8).reshape(stop - start, 4, quads * 2, 2)
        even, odd = columns[..., 0], columns[..., 1]
        octets[start:stop, 0] = (even & 0x0F) | (odd << 4)
        octets[start:stop, 1] = (even >> 4) | (odd & 0xF0)

    for_row_ranges(strips, quads * 16, unpack_strips)
    return packed[:vocab]
