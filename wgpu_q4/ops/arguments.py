"""The arguments that the ops share, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import to_numpy
from wgpu_q4.weight import Q4Weight


def check_weight(weight: object) -> None:
    """Raise `TypeError` unless ``weight`` is a `Q4Weight`."""
    if not isinstance(weight, Q4Weight):
        raise TypeError(
            f"weight must be a Q4Weight, not {type(weight).__name__}: make one with "
            f"Q4Weight.quantize(matrix) or Q4Weight(packed, scales)"
        )


def check_option(name: str, value: object, allowed: Sequence[str]) -> str:
    """``value`` as a string if it is one of ``allowed``, else `ValueError`.

    For ``dtype`` a numpy or torch dtype of that name will do too.
    """
    text = str(value).removeprefix("torch.")
    if name == "dtype" and isinstance(value, (type, np.dtype)):
        text = np.dtype(value).name
    if text not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return text


def check_indices(indices: object, vocab: int) -> NDArray[np.int32]:
    """``indices`` (numpy or torch, any integer dtype, any shape) as int32, C-contiguous.

    Raises:
        TypeError: not an array, or not of an integer dtype.
        IndexError: an id outside 0..vocab − 1; names the first one, its position and ``vocab``.
    """
    ids = to_numpy(indices, "indices")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"indices must have an integer dtype, not {ids.dtype}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= vocab):
        bad = np.argwhere((ids < 0) | (ids >= vocab))[0]
        position = tuple(int(axis) for axis in bad)
        place = f"indices[{', '.join(map(str, position))}]" if position else "indices"
        raise IndexError(
            f"{place} is {ids[position]}, outside the vocabulary of {vocab}: "
            f"ids must be in 0..{vocab - 1}"
        )
    return ids.astype(np.int32, order="C", copy=False)
