"""Differences that are known, each named, with its cause and exactly where it may occur.

A value that differs anywhere else fails the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.parity.cases import Case

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Excuse:
    """One known difference.

    Attributes:
        name: short.
        cause: why, and why nothing is done about it.
        backend: whether a backend of that name may have it.
        covers: case, found and right result → which values may differ.
    """

    name: str
    cause: str
    backend: Callable[[str], bool]
    covers: Callable[[Case, NDArray[Any], NDArray[Any]], Mask]


def excused(
    backend: str, case: Case, found: NDArray[Any], right: NDArray[Any]
) -> tuple[Mask, list[str]]:
    """Which values of a result may differ, and the names of the excuses that were needed."""
    differs = _bits(found) != _bits(right)
    covered = np.zeros(right.shape, bool)
    names = []
    for excuse in EXCUSES:
        if case.op == "embedding" and excuse.backend(backend):
            mask = excuse.covers(case, found, right)
            if (mask & differs).any():
                names.append(excuse.name)
                covered |= mask
    return covered, names


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _on_swiftshader(backend: str) -> bool:
    return backend.endswith("/swiftshader")


def _flushed(case: Case, found: NDArray[Any], right: NDArray[Any]) -> Mask:
    if case.output != "float32" or case.scales != "float32":
        return np.zeros(right.shape, bool)
    subnormal = (right != 0) & (np.abs(right) < np.finfo(np.float32).tiny)
    return np.asarray(subnormal & (found == 0))


def _infinite(case: Case, found: NDArray[Any], right: NDArray[Any]) -> Mask:
    if case.output != "float16" or case.storage != "texture3d":
        return np.zeros(right.shape, bool)
    texels = np.isinf(right).reshape(*right.shape[:-1], -1, 4).any(-1)
    return np.repeat(texels, 4, axis=-1)


def _last_half(case: Case, found: NDArray[Any], right: NDArray[Any]) -> Mask:
    groups = case.embed_dim // case.group_size
    mask = np.zeros(right.shape, bool)
    if case.scales == "float16" and case.vocab * groups % 2:
        last_row = case.ids() == case.vocab - 1
        mask[..., -case.group_size :] = last_row[..., None]
    return np.asarray(mask & (found == 0))


EXCUSES = (
    Excuse(
        "subnormals flushed",
        "SwiftShader turns float32 subnormals into zeros, which Vulkan and WebGPU leave to the "
        "implementation. The quantizer makes no scale that small.",
        _on_swiftshader,
        _flushed,
    ),
    Excuse(
        "texel with an infinity",
        "SwiftShader stores an infinity in an rgba16f texture as NaN, and disturbs the other "
        "components of the texel. In a buffer it stays infinite.",
        _on_swiftshader,
        _infinite,
    ),
    Excuse(
        "last of an odd number of half scales",
        "The generated GLSL reads half scales two to a 32-bit word, so that it needs no 16-bit "
        "storage. ExecuTorch ends the buffer behind an odd number of them in the middle of a "
        "word: a driver that checks bounds returns 0 for it, and for blocks with one scale a row, "
        "where the scales tell V, that row is not counted. Only an odd V with an odd K/G has such "
        "a number.",
        lambda backend: backend.startswith("vulkan/"),
        _last_half,
    ),
)
