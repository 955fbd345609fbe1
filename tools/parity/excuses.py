"""Which known differences a backend may have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.check.cases import Case
from wgpu_q4.check.excuses import INFINITE_TEXEL, SUBNORMALS_FLUSHED, Excuse, Mask


def _last_half(case: Case, found: NDArray[Any], right: NDArray[Any]) -> Mask:
    groups = case.embed_dim // case.group_size
    mask = np.zeros(right.shape, bool)
    if case.scales == "float16" and case.vocab * groups % 2:
        last_row = case.ids() == case.vocab - 1
        mask[..., -case.group_size :] = last_row[..., None]
    return np.asarray(mask & (found == 0))


LAST_HALF = Excuse(
    "last of an odd number of half scales",
    "The generated GLSL reads half scales two to a 32-bit word, so that it needs no 16-bit "
    "storage. ExecuTorch ends the buffer behind an odd number of them in the middle of a "
    "word: a driver that checks bounds returns 0 for it, and for blocks with one scale a row, "
    "where the scales tell V, that row is not counted. Only an odd V with an odd K/G has such "
    "a number.",
    _last_half,
)

EXCUSES = (SUBNORMALS_FLUSHED, INFINITE_TEXEL, LAST_HALF)


def excuses_of(backend: str) -> list[Excuse]:
    """Return the excuses that the backend of that name may have."""
    excuses = []
    if backend.endswith("/swiftshader"):
        excuses += [SUBNORMALS_FLUSHED, INFINITE_TEXEL]
    if backend.startswith("vulkan/"):
        excuses.append(LAST_HALF)
    return excuses
