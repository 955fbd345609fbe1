"""One piece of work with every op, whose results are compared with float64 in plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import wgpu_q4
from wgpu_q4 import Q4Weight, ops, reference

SHAPES = ((257, 72, 24), (101, 96, 32), (13, 24, 8), (1000, 64, 32), (1, 8, 8))
"""V, K, G: prime V, K and G that are no powers of two, whole groups, a single row."""

OPS = ("embedding", "linear", "argmax", "top_k", "linear_transposed")


def new_weight(rng: np.random.Generator) -> Q4Weight:
    """Return a weight of one of `SHAPES` with scales of either sign."""
    vocab, embed_dim, group_size = SHAPES[rng.integers(len(SHAPES))]
    packed = rng.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
    scales = rng.uniform(0.005, 0.02, (vocab, embed_dim // group_size))
    scales *= rng.choice([-1, 1], scales.shape)
    return Q4Weight(packed, scales.astype(("float16", "float32")[rng.integers(2)]))


@dataclass
class Case:
    """A weight, arguments for each op, and the right results.

    Attributes:
        weight: the matrix.
        calls: by the name of the op: call it on a device and raise unless its result is right.
    """

    weight: Q4Weight
    calls: dict[str, Callable[[Any], None]] = field(default_factory=dict)


def new_case(rng: np.random.Generator, rows: int = 3) -> Case:
    """Return a case with a weight of its own."""
    weight = new_weight(rng)
    vocab, embed_dim = weight.shape
    ids = rng.integers(0, vocab, 1 + int(rng.integers(40)))
    x = rng.standard_normal((rows, embed_dim)).astype(np.float32)
    y = rng.standard_normal((rows, vocab)).astype(np.float32)
    k = min(3, vocab)
    looked_up = reference.embedding(ids, weight)
    logits, logits_bound = reference.linear(x, weight), reference.linear_bound(x, weight)
    turned = reference.linear_transposed(y, weight)
    turned_bound = reference.linear_transposed_bound(y, weight)

    def embedding(device: Any) -> None:
        found = wgpu_q4.embedding(ids, weight, device=device)
        if not np.array_equal(found, looked_up):
            raise AssertionError(f"embedding of {weight}: wrong rows")

    def linear(device: Any) -> None:
        found = wgpu_q4.linear(x, weight, device=device)
        _check(f"linear with {weight}", found, logits, logits_bound)

    def argmax(device: Any) -> None:
        found = wgpu_q4.argmax(x, weight, device=device)
        _check_best(f"argmax with {weight}", found[:, None], logits, logits_bound)

    def top_k(device: Any) -> None:
        found = wgpu_q4.top_k(x, weight, k, device=device)
        at = np.take_along_axis(logits, found.ids, -1)
        bound = np.take_along_axis(logits_bound, found.ids, -1)
        _check(f"top_k with {weight}", found.values, at, bound)
        _check_best(f"top_k with {weight}", found.ids, logits, logits_bound)

    def linear_transposed(device: Any) -> None:
        found = ops.linear_transposed(y, weight, device=device)
        _check(f"linear_transposed with {weight}", found, turned, turned_bound)

    checks = embedding, linear, argmax, top_k, linear_transposed
    return Case(weight, dict(zip(OPS, checks, strict=True)))


def _check(
    name: str, found: NDArray[Any], expected: NDArray[np.float64], bound: NDArray[np.float64]
) -> None:
    # not (… <= …): nan is wrong, too
    if found.shape != expected.shape or not (np.abs(found - expected) <= bound).all():
        raise AssertionError(f"{name}: outside the bound")


def _check_best(
    name: str, ids: NDArray[Any], logits: NDArray[np.float64], bound: NDArray[np.float64]
) -> None:
    """Raise unless the k ids of each row are different and belong to k largest logits.

    Two logits may stand in either order if their bounds overlap.
    """
    if not ((ids >= 0) & (ids < logits.shape[-1])).all():
        raise AssertionError(f"{name}: ids outside the vocabulary")
    least = np.take_along_axis(logits + bound, ids, -1).min(axis=-1)
    for row, (chosen, at_least) in enumerate(zip(ids, least, strict=True)):
        surely = np.flatnonzero((logits - bound)[row] > at_least)
        if len(set(chosen.tolist())) < len(chosen) or not set(surely) <= set(chosen.tolist()):
            raise AssertionError(f"{name}: ids {chosen.tolist()} in row {row} are not the best")
