"""The choice of the next id from the logits, on the device.

`Decoder` asks a chooser for the steps that make an id the next of the sequence.  They run after
those that make the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels.decoder import ADVANCE, plan_choose_best
from wgpu_q4.kernels.dispatch import Dispatch

if TYPE_CHECKING:
    from wgpu_q4.device import Context


class Logits(NamedTuple):
    """What the head leaves on the device, and where the next id goes.

    Attributes:
        logits: buffer of float32 ``[vocab]``.
        vocab: how many there are.
        best: buffer of ``best_count`` entries (bits of a logit, id), the best of each workgroup.
        best_count: how many there are.
        ids: the ids of the sequence, one more than the cache has positions.
        state: the position of the first row that was computed, and the number of rows
            (``wgsl/decoder/state.wgsl``).
        choice: a buffer for the entry of the chosen id, which `advance` reads.
        capacity: positions that the cache holds.
    """

    logits: Any
    vocab: int
    best: Any
    best_count: int
    ids: Any
    state: Any
    choice: Any
    capacity: int


@runtime_checkable
class Chooser(Protocol):
    """Choose the next id."""

    def begin(self, position: int, history: Callable[[], NDArray[np.uint32]]) -> None:
        """Begin a sequence, or go on with one.

        Args:
            position: of the next id that is chosen.
            history: returns the ids before it, those of the prompt included.
        """
        ...

    def steps(self, context: Context, logits: Logits) -> list[Step]:
        """Return the steps that choose an id and make it the next of the sequence.

        They are asked for once, and run for every token.  Those that write the chosen entry to
        ``logits.choice`` end with `advance`.
        """
        ...


def advance(context: Context, logits: Logits) -> Step:
    """Return the step that makes the id in ``logits.choice`` the next of the sequence."""
    resources = {"t_ids": logits.ids, "t_choice": logits.choice, "t_state": logits.state}
    return context.pipelines.step(Dispatch(ADVANCE, {}, (1, 1, 1)), resources)


class Greedy:
    """Choose the id of the largest logit, the first of equals; none if all are NaN."""

    def begin(self, position: int, history: Callable[[], NDArray[np.uint32]]) -> None:
        """Do nothing: the choice depends on the logits alone."""

    def steps(self, context: Context, logits: Logits) -> list[Step]:
        """See `Chooser`."""
        dispatch = plan_choose_best(logits.best_count, logits.capacity)
        resources = {"t_ids": logits.ids, "t_in": logits.best, "t_state": logits.state}
        return [context.pipelines.step(dispatch, resources)]
