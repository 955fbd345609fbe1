"""Differences that are known: their cause, and exactly which values may differ.

A value that differs anywhere else is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.check import oracle
from wgpu_q4.check.cases import Case

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Excuse:
    """One known difference.

    Attributes:
        name: a few words.
        cause: where the difference comes from, and why nothing is done about it.
        covers: takes a case, the found and the right result; returns which values may differ.
    """

    name: str
    cause: str
    covers: Callable[[Case, NDArray[Any], NDArray[Any]], Mask]


@dataclass(frozen=True)
class Judgement:
    """What a result is worth.

    Attributes:
        status: ``"excused"`` if every difference is a known one.
        distance: how far the result is from the right one; for ``"differs"`` without the values
            that are excused.
        excuses: the names of the excuses that were needed.
    """

    status: Literal["exact", "excused", "differs"]
    distance: oracle.Distance
    excuses: tuple[str, ...] = ()


def judge(case: Case, found: NDArray[Any], excuses: Iterable[Excuse]) -> Judgement:
    """Compare a result with the right one.

    Raises:
        ValueError: the result has another shape or dtype.
    """
    right = oracle.expected(case)
    found = oracle.without_padding(case, found)
    distance = oracle.distance(found, right)
    if not distance.differing:
        return Judgement("exact", distance)
    differs = oracle.bits(found) != oracle.bits(right)
    covered = np.zeros(right.shape, bool)
    names = []
    for excuse in excuses:
        if case.op == "embedding" and (mask := excuse.covers(case, found, right) & differs).any():
            names.append(excuse.name)
            covered |= mask
    unexcused = oracle.distance(np.where(covered, right, found), right)
    if unexcused.differing:
        return Judgement("differs", unexcused, tuple(names))
    return Judgement("excused", distance, tuple(names))


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


SUBNORMALS_FLUSHED = Excuse(
    "subnormals flushed",
    "The driver turns float32 subnormals into zeros, which Vulkan and WebGPU leave to the "
    "implementation. The quantizer makes no scale that small.",
    _flushed,
)

INFINITE_TEXEL = Excuse(
    "texel with an infinity",
    "SwiftShader stores an infinity in an rgba16f texture as NaN, and disturbs the other "
    "components of the texel. In a buffer it stays infinite.",
    _infinite,
)
