"""Everything of a decoder that is on the device, and what runs there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.decoder.choose import Chooser, Logits
from wgpu_q4.decoder.layers import DeviceModel
from wgpu_q4.decoder.memory import Memory
from wgpu_q4.decoder.prompt import PASS_ROWS, PromptSteps
from wgpu_q4.decoder.submission import Submission, Submissions
from wgpu_q4.decoder.token import TokenSteps, slices_for
from wgpu_q4.decoder.weights import Weights
from wgpu_q4.device.commands import Commands
from wgpu_q4.kernels import Accuracy
from wgpu_q4.kernels.decoder import CacheDtype

if TYPE_CHECKING:
    from wgpu_q4.device import Context


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is put on a device: as the arguments of `wgpu_q4.decoder.Decoder`."""

    capacity: int
    cache: CacheDtype
    chooser: Chooser
    accuracy: Accuracy
    prompt_rows: int | None
    slices: int | None
    most_steps: int


class Engine:
    """A model on a device; use it with the context's lock held.

    Attributes:
        memory: the sequence, the cache, and what kernels hand on.
        model: the weights.
        token: the steps from an id to the logits of the next.
        end: from there to the next id.
        submissions: what was submitted and not read.
    """

    def __init__(self, context: Context, weights: Weights, options: Options) -> None:
        config = self._config = weights.config
        self._context, self._options = context, options
        most = options.prompt_rows or (32 if context.is_software else 512)
        self._pass_rows = [rows for rows in PASS_ROWS if rows <= most] or [PASS_ROWS[0]]
        slices = options.slices or slices_for(options.capacity, context.is_software)
        largest = self._pass_rows[-1]
        self.memory = Memory(context, config, options.capacity, largest, options.cache)
        self.model = DeviceModel(context, weights)
        self.token = TokenSteps(context, config, self.model, self.memory, slices)
        self.end = self._end_of_step()
        self.submissions = Submissions(context, self.memory.ids, options.most_steps)
        self._passes: dict[int, PromptSteps] = {}

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes on the device: the matrix of embedding and head, the layers, the cache, others."""
        cache = self.memory.cache_bytes
        return {
            "embedding and head": self.model.tied_bytes,
            "layers": self.model.body_bytes,
            "cache": cache,
            "work": self.memory.nbytes - cache + self.submissions.nbytes,
        }

    def submit_prompt(self, prompt: NDArray[np.uint32], keep: int) -> Submission:
        """Submit the passes of a prompt, and return the last: it makes the id that follows.

        Args:
            prompt: ids ``[n]``, at least one.
            keep: positions of the present sequence that come before them.
        """
        queue, memory = self._context.device.queue, self.memory
        self._options.chooser.begin(
            keep + len(prompt), lambda: np.concatenate([self._ids_so_far(keep), prompt])
        )
        queue.write_buffer(memory.ids, 4 * keep, prompt)
        for start in range(0, len(prompt), self._pass_rows[-1]):
            rows = min(self._pass_rows[-1], len(prompt) - start)
            passed = self._pass(rows)
            passed.write_sizes(rows)
            queue.write_buffer(memory.state, 0, np.array([keep + start, rows], np.uint32))
            parts = [passed.layers]
            if start + rows == len(prompt):
                parts += (passed.last, self.token.head, self.end)
                break
            self.submissions.submit(self.submissions.start(parts))
        return self.submissions.submit(self.submissions.start(parts, keep + len(prompt), 1))

    def start_steps(self, position: int, count: int) -> Submission:
        """Begin to submit ``count`` steps, the first with the row at ``position``."""
        parts: list[Commands] = []
        for at in range(position, position + count):
            parts += (self.token.at(at), self.end)
        return self.submissions.start(parts, position + 1, count)

    def _ids_so_far(self, count: int) -> NDArray[np.uint32]:
        """Return the first ids of the sequence, from the device."""
        if not count:
            return np.empty(0, np.uint32)
        found = self._context.device.queue.read_buffer(self.memory.ids, 0, 4 * count)
        return np.frombuffer(found, np.uint32)

    def _pass(self, rows: int) -> PromptSteps:
        """Return the smallest pass for so many rows, compiled when it is first needed."""
        size = next(size for size in self._pass_rows if rows <= size)
        found = self._passes.get(size)
        if found is None:
            shared = self._context, self._config, self.model, self.memory
            found = self._passes[size] = PromptSteps(*shared, size, self._options.accuracy)
        return found

    def _end_of_step(self) -> Commands:
        """Return the commands from the logits to the next id of the sequence."""
        memory, token = self.memory, self.token
        logits = Logits(
            memory.logits,
            self._config.vocab,
            token.best,
            token.best_count,
            memory.ids,
            memory.state,
            memory.choice,
            self._options.capacity,
        )
        return Commands.of(self._options.chooser.steps(self._context, logits))
