"""How dtypes and sizes are written in messages."""

from __future__ import annotations

import torch

from wgpu_q4.arrays import DTypeLike, one_dtype

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes that a float matrix, and rows of it, may have."""


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
