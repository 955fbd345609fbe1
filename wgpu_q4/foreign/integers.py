"""Words of nibbles, as others store them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import to_numpy
from wgpu_q4.errors import FormatError


def matrix(array: object, name: str, *dtypes: str) -> NDArray[Any]:
    """Return a two-dimensional array of one of ``dtypes``.

    Raises:
        TypeError: no array.
        FormatError: another dtype or number of dimensions.
    """
    found = to_numpy(array, name)
    if found.dtype.name not in dtypes:
        raise FormatError(f"{name} must be {' or '.join(dtypes)}, not {found.dtype}")
    if found.ndim != 2:
        raise FormatError(f"{name} must have two dimensions, not shape {list(found.shape)}")
    return found


def check_block(group_size: object) -> None:
    """Raise `FormatError` unless ``group_size`` is a positive integer."""
    if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 1:
        raise FormatError(f"group_size must be a positive int, not {group_size!r}")


FLOATS = ("float16", "float32", "float64")
"""What scales may be, once bfloat16 has become float32."""


def nibble_bytes(words: NDArray[Any]) -> NDArray[np.uint8]:
    """Return 32-bit words, whose lowest nibble comes first, as bytes in the linear convention."""
    return np.ascontiguousarray(words, words.dtype.newbyteorder("<")).view(np.uint8)


def nibbles(words: NDArray[Any], count: int) -> NDArray[np.uint8]:
    """Return the first ``count`` nibbles of each row of 32-bit words ``[n, ≥ count/8]``."""
    packed = nibble_bytes(words)
    spread = np.stack((packed & 15, packed >> 4), axis=-1)
    return spread.reshape(len(words), -1)[:, :count]
