"""The names of dtypes and sizes in arguments and in messages."""

from __future__ import annotations

import torch

from wgpu_q4.arrays import DTypeLike, one_dtype

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes of a float matrix, and of rows of it."""


def torch_float(value: DTypeLike) -> torch.dtype:
    """Return the one of `FLOATS` that ``value``, as numpy or torch write it, stands for.

    Raises:
        ValueError: another dtype.
    """
    names = tuple(map(dtype_name, FLOATS))
    return FLOATS[names.index(one_dtype("dtype", value, names))]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dtype_names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(map(dtype_name, dtypes))


def mebibytes(size: int) -> str:
    return f"{size / 2**20:8.2f} MiB"
