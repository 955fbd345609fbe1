"""The choice of the next id from the logits, on the device.

`Decoder` asks a chooser for the steps that write an entry, the bits of a logit and its id, to a
buffer.  They run after those that make the logits, and before the id becomes the next of the
sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels.dispatch import Dispatch
from wgpu_q4.kernels.reduction import reduction_shader

if TYPE_CHECKING:
    from wgpu_q4.device import Context


class Logits(NamedTuple):
    """What the head leaves on the device.

    Attributes:
        logits: buffer of float32 ``[vocab]``.
        vocab: how many there are.
        best: buffer of ``best_count`` entries (bits of a logit, id), the best of each workgroup.
        best_count: how many there are.
        ids, state: the sequence, and the position of the row that the logits follow
            (``wgsl/decoder/state.wgsl``).
        choice: buffer of the entry to write.
    """

    logits: Any
    vocab: int
    best: Any
    best_count: int
    ids: Any
    state: Any
    choice: Any


class Chooser(Protocol):
    """Choose the next id."""

    def steps(self, context: Context, logits: Logits) -> list[Step]:
        """Return the steps that write the chosen entry to ``logits.choice``.

        They are asked for once, and run for every token.
        """
        ...


class Greedy:
    """Choose the id of the largest logit, the first of equals."""

    def steps(self, context: Context, logits: Logits) -> list[Step]:
        """See `Chooser`."""
        count = logits.best_count
        constants = {"COLUMNS": count, "SLICE": 1 << (count - 1).bit_length()}
        dispatch = Dispatch(reduction_shader("argmax", "candidates"), constants, (1, 1, 1))
        sizes = context.create_buffer("wgpu_q4 decoder: one row", 16, "UNIFORM", "COPY_DST")
        context.device.queue.write_buffer(sizes, 0, bytes([1] + [0] * 15))
        resources = {"t_out": logits.choice, "t_in": logits.best, "sizes": sizes}
        return [context.pipelines.step(dispatch, resources)]
