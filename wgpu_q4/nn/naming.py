"""How dtypes and sizes are written in messages."""

from __future__ import annotations

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes that a float matrix, and rows of it, may have."""


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dtype_names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(map(dtype_name, dtypes))


def mebibytes(size: int) -> str:
    return f"{size / 2**20:8.2f} MiB"
