"""The two nibble orders, and repacking between them.

A row of K nibbles takes K/2 bytes.  Byte ``j`` holds elements ``2j`` and ``2j + 1``:

* ``"linear"`` (ExecuTorch's ``et_vk.linear_q4gsw``): ``2j`` in the low nibble, ``2j + 1`` in the
  high one.  The canonical form: it is what is hashed, saved and shared.
* ``"embedding"`` (ExecuTorch's ``quantized_decomposed.embedding_4bit``): the other way round.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.format.parallel import for_row_ranges

Convention = Literal["linear", "embedding"]


def check_convention(convention: object) -> Convention:
    """``convention`` itself, or `FormatError` with the two names that are allowed."""
    if convention == "linear" or convention == "embedding":
        return convention
    names = " or ".join(repr(name) for name in get_args(Convention))
    raise FormatError(f"convention must be {names}, not {convention!r}")


def repack(packed: NDArray[np.uint8], source: Convention, target: Convention) -> NDArray[np.uint8]:
    """``packed`` (any shape, uint8) with its nibbles in the order of ``target``.

    The same array comes back when the order is already right; else a new one.
    """
    if check_convention(source) == check_convention(target):
        return packed
    rows = np.ascontiguousarray(packed).reshape(-1)
    swapped = np.empty_like(rows)

    def swap(start: int, stop: int) -> None:
        part = rows[start:stop]
        np.left_shift(part, 4, out=swapped[start:stop])
        swapped[start:stop] |= part >> 4

    for_row_ranges(rows.size, 1, swap)
    return swapped.reshape(packed.shape)


def pack_linear(values: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Pack ``values`` ``[n, K]`` in 0..15 into ``out`` ``[n, K/2]``, linear convention."""
    np.left_shift(values[:, 1::2], 4, out=out)
    out |= values[:, 0::2]


def unpack(packed: NDArray[np.uint8], convention: Convention) -> NDArray[np.uint8]:
    """The nibbles ``u`` in 0..15 of ``packed`` ``[V, K/2]``, as uint8 ``[V, K]``."""
    first_low = check_convention(convention) == "linear"
    values = np.empty((*packed.shape, 2), np.uint8)
    np.bitwise_and(packed, 15, out=values[..., 0 if first_low else 1])
    np.right_shift(packed, 4, out=values[..., 1 if first_low else 0])
    return values.reshape(packed.shape[0], packed.shape[1] * 2)
