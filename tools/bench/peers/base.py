"""A peer, which is another library on the same job, and the check that it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import Q4Weight, reference
from wgpu_q4.bench.timing import Clock, Timing

_CHECKED_ROWS = 4
_CHECKED_COLUMNS = 64


class UnavailableError(Exception):
    """A peer, or one op of it, cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Task:
    """One job, ready.

    Attributes:
        answer: does the job once and returns the result as numpy.
        measure: times the job.
        clock: how the job is timed.
        moved: the bytes that the job must move in the GPU's memory; 0 if they do not bound it.
        tolerance: how far the answer may be from the exact one, relative to its root mean square.
        detail: dtype, accuracy, device.
    """

    answer: Callable[[], NDArray[Any]]
    measure: Callable[[], Timing]
    clock: Clock
    moved: int
    tolerance: float
    detail: Mapping[str, str] = field(default_factory=dict)


class Peer:
    """Another library on one weight; an op that it lacks raises `UnavailableError`."""

    who: str

    def embedding(self, ids: NDArray[np.int64]) -> Task:
        """Return the job of looking rows up by id."""
        raise UnavailableError(f"{self.who} has no lookup here")

    def linear(self, x: NDArray[np.float32]) -> Task:
        """Return the job of computing ``x · Wᵀ``."""
        raise UnavailableError(f"{self.who} has no product here")

    def close(self) -> None:
        """Release memory and threads."""


def check(task: Task, op: str, given: NDArray[Any], weight: Q4Weight) -> None:
    """Raise unless a task computes what the float64 reference computes.

    A few rows are compared, and of a product a few columns, spread over the whole.

    Raises:
        UnavailableError: the task computes something else; the message says by how much.
    """
    answer = task.answer()
    vocab, embed_dim = weight.shape
    rows = np.unique(np.linspace(0, len(given) - 1, _CHECKED_ROWS, dtype=np.int64))
    if op == "embedding":
        shape = (len(given), embed_dim)
        expected = reference.embedding(given[rows], weight).astype(np.float64)
        found = answer[rows] if answer.shape == shape else None
    else:
        shape = (len(given), vocab)
        columns = np.unique(np.linspace(0, vocab - 1, _CHECKED_COLUMNS, dtype=np.int64))
        part = Q4Weight(weight.packed[columns], weight.scales[columns], weight.convention)
        expected = reference.linear(given[rows], part)
        found = answer[np.ix_(rows, columns)] if answer.shape == shape else None
    if found is None:
        raise UnavailableError(f"its result has shape {answer.shape}, not {shape}")
    size = float(np.sqrt(np.mean(expected**2)))
    error = float(np.abs(found.astype(np.float64) - expected).max()) / size
    if not error <= task.tolerance:  # a NaN is no agreement
        raise UnavailableError(f"its result is wrong: {error:.1e} off, relative to its size")
