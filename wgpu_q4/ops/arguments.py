"""The arguments that the ops share, checked before anything is computed."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import is_torch, to_numpy
from wgpu_q4.weight import Q4Weight

NameT = TypeVar("NameT", bound=str)


def check_weight(weight: object) -> tuple[int, int]:
    """Return the shape ``(V, K)`` of a weight; raise `TypeError` if it is no `Q4Weight`."""
    if not isinstance(weight, Q4Weight):
        raise TypeError(
            f"weight must be a Q4Weight, not {type(weight).__name__}: make one with "
            f"Q4Weight.quantize(matrix) or Q4Weight(packed, scales)"
        )
    return weight.shape


def check_option(name: str, value: object, allowed: tuple[NameT, ...]) -> NameT:
    """Return ``value`` if it is one of ``allowed``, else raise `ValueError`."""
    for option in allowed:
        if value == option:
            return option
    raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def check_indices(indices: object, vocab: int, name: str = "indices") -> NDArray[np.int32]:
    """Return ``indices`` (any integer dtype, any shape) as int32, C-contiguous.

    Args:
        indices: the ids.
        vocab: V.
        name: of the argument.

    Raises:
        TypeError: not an array, or not of an integer dtype.
        IndexError: an id outside 0..vocab − 1; names the first one, its position and ``vocab``.
    """
    ids = to_numpy(indices, name)
    if ids.dtype.kind not in "iu":
        if not (ids.size == 0 and isinstance(indices, (list, tuple))):  # [] says no dtype
            raise TypeError(f"{name} must have an integer dtype, not {ids.dtype}")
    elif ids.size and (int(ids.min()) < 0 or int(ids.max()) >= vocab):
        bad = np.argwhere((ids < 0) | (ids >= vocab))[0]
        position = tuple(int(axis) for axis in bad)
        place = f"{name}[{', '.join(map(str, position))}]" if position else name
        raise IndexError(
            f"{place} is {ids[position]}, outside the vocabulary of {vocab}: "
            f"ids must be in 0..{vocab - 1}"
        )
    return ids.astype(np.int32, order="C", copy=False)


def check_floats(array: object, name: str) -> NDArray[np.float32]:
    """Return ``array``, float32, float16 or bfloat16 of any shape, as float32, C-contiguous.

    Raises:
        TypeError: not an array, or of another dtype; the message says how to convert it.
    """
    if type(array) is np.ndarray and array.dtype == np.float32:  # a decode step's x: quickly
        return array.astype(np.float32, order="C", copy=False)
    dtype = str(getattr(array, "dtype", "")).removeprefix("torch.")
    if dtype.startswith("float8"):
        raise TypeError(
            f"{name} must be float32, float16 or bfloat16, not {dtype}, in which the result would "
            f"be rounded to 8 bits: convert with {_to_float32(array)}"
        )
    values: NDArray[Any] = to_numpy(array, name)
    if values.dtype not in (np.float16, np.float32):
        hint = f": convert with {_to_float32(array)}" if values.dtype.kind in "fiu" else ""
        raise TypeError(f"{name} must be float32 or float16, not {values.dtype}{hint}")
    return values.astype(np.float32, order="C", copy=False)


def _to_float32(array: object) -> str:
    return ".float()" if is_torch(array) else ".astype(np.float32)"
