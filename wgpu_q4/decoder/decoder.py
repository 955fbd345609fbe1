"""`Decoder`: a language model that runs on the device, from ids to ids."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike
from wgpu_q4.decoder.choose import Chooser, Greedy, Logits
from wgpu_q4.decoder.layers import DeviceModel
from wgpu_q4.decoder.memory import Memory
from wgpu_q4.decoder.prompt import PASS_ROWS, PromptSteps
from wgpu_q4.decoder.sampler import check_drawn
from wgpu_q4.decoder.submission import Submission, Submissions
from wgpu_q4.decoder.token import TokenSteps, slices_for
from wgpu_q4.decoder.weights import Weights
from wgpu_q4.device.commands import Commands
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.kernels import Accuracy
from wgpu_q4.kernels.decoder import CacheDtype, WeightType
from wgpu_q4.ops.arguments import check_indices, check_option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from wgpu_q4.files.regular import StrPath

DEFAULT_CAPACITY = 4096
"""Positions of the cache where the caller names none and the model allows as many."""


class Decoder:
    """A decoder of the Llama family on one device.

    Everything that a token needs stays there: its id, its embedding, the layers with their cache,
    the head, and the choice of the next id.  The host encodes several steps at a time and reads
    their ids while the next ones run::

        decoder = Decoder.from_gguf("model.gguf")
        for id in decoder.generate(prompt_ids, max_new_tokens=100):
            ...

    The matrix of the embedding, which is the head too if it is tied, is the copy that
    `wgpu_q4.embedding` and `wgpu_q4.linear` read.  The numbers of the layers are 4-bit or float16,
    and all arithmetic is float32.

    A decoder holds one sequence, and one thread uses it at a time.

    Attributes:
        config: the model's shape.
        context: the device and what is kept on it.
        capacity: positions that the cache holds.
        embedding: the matrix of the embedding.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: Any = None,
        capacity: int | None = None,
        cache: CacheDtype = "float16",
        chooser: Chooser | None = None,
        accuracy: Accuracy = "exact",
        prompt_rows: int | None = None,
        slices: int | None = None,
        most_steps: int = 64,
    ) -> None:
        """Put a model on a device.

        Args:
            weights: the model.
            device: as in `wgpu_q4.linear`.
            capacity: positions of the cache; by default those of the model, at most 4096.
            cache: the type of the numbers of keys and values.
            chooser: chooses the next id; by default that of the largest logit.
            accuracy: as in `wgpu_q4.linear`, of the products with many rows of a prompt and a
                4-bit matrix of a layer; a generated token is always exact.
            prompt_rows: rows of a prompt that a pass takes at most, which decides how much memory
                passes take; by default 512, on a processor 32.
            slices: workgroups that share the positions which a head looks at, once there are more
                than 512; by default as many as keep a GPU busy, on a processor 1.
            most_steps: the most steps of a submission.

        Raises:
            ValueError: an option that does not exist, or a number out of range.
            FormatError: a matrix that the kernels cannot read.
            DeviceError: no such device.
            DeviceLimitError: a buffer would be larger than the device allows.
        """
        config = weights.config
        self.config, self.embedding = config, weights.embedding
        check_option("cache", cache, ("float16", "float32"))
        self._accuracy = check_option("accuracy", accuracy, get_args(Accuracy))
        if capacity is None:
            capacity = min(config.positions, DEFAULT_CAPACITY)
        if not 1 <= capacity <= config.positions:
            raise ValueError(
                f"capacity must be in 1..{config.positions}, the positions that the model was made "
                f"for, not {capacity}"
            )
        for name, value in (("most_steps", most_steps), ("slices", slices)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.capacity, self._most_steps = capacity, most_steps
        self.context: Context = context_for(device)
        context = self.context
        if slices is None:
            slices = slices_for(config.heads, context.is_software)
        if prompt_rows is None:
            prompt_rows = 32 if context.is_software else 512
        self._pass_rows = [rows for rows in PASS_ROWS if rows <= prompt_rows] or [PASS_ROWS[0]]
        with context.lock, context.guard, context.guard.busy:
            self._memory = Memory(context, config, capacity, self._pass_rows[-1], cache)
            self._model = DeviceModel(context, weights)
            self._token = TokenSteps(context, config, self._model, self._memory, slices)
            self._chooser = chooser or Greedy()
            self._end = self._end_of_step(self._chooser)
            self._passes: dict[int, PromptSteps] = {}
            self._submissions = Submissions(context, self._memory.ids, most_steps)
        self._length = 0
        self._turn = 0

    @classmethod
    def from_gguf(cls, path: StrPath, **options: Any) -> Decoder:
        """Read a model from a GGUF file; its layers are in 4 bits where the file's are Q4_0.

        A matrix of Q4_0 keeps its numbers.  A matrix of any other type is dequantized and rounded
        to float16; the embedding, and a head of its own, are quantized to 4 bits as by
        `wgpu_q4.from_gguf`.

        Args:
            path: the file.
            options: as for `Decoder`.

        Raises:
            ImportError: the ``gguf`` library is not installed.
            FormatError: no whole GGUF file, or of a model that the decoder does not run.
        """
        from wgpu_q4.decoder.gguf import weights_of_file

        return cls(weights_of_file(path), **options)

    @classmethod
    def from_hf(
        cls,
        model: PreTrainedModel | str | os.PathLike[str],
        *,
        body: WeightType = "float16",
        group_size: int = 32,
        **options: Any,
    ) -> Decoder:
        """Take the weights of a model of transformers.

        The embedding, and a head of its own, are quantized to 4 bits as by `wgpu_q4.quantize`,
        unless `wgpu_q4.nn.tie` has done that already.

        Args:
            model: a model for causal language modelling, or the folder of one.
            body: the numbers of the layers' matrices: rounded to float16, or quantized to 4 bits,
                which small models do not survive.
            group_size: values that share a scale, a multiple of 32.
            options: as for `Decoder`.

        Raises:
            FormatError: a model that the decoder does not run.
        """
        from wgpu_q4.decoder.huggingface import weights_of_model

        check_option("body", body, ("float16", "q4gsw"))
        return cls(weights_of_model(model, body, group_size), **options)

    @property
    def length(self) -> int:
        """Positions of the sequence whose keys and values are in the cache."""
        return self._length

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes on the device: the matrix of embedding and head, the layers, the cache, others."""
        memory, model = self._memory, self._model
        cache = memory.cache_bytes
        return {
            "embedding and head": model.tied_bytes,
            "layers": model.body_bytes,
            "cache": cache,
            "work": memory.nbytes - cache + self._submissions.nbytes,
        }

    def prefill(self, ids: ArrayLike, *, keep: int = 0) -> None:
        """Begin a sequence with ``ids``; what follows them is computed, and chosen, too.

        Args:
            ids: integers ``[n]``, at least one.
            keep: positions of the present sequence that come before ``ids``; 0 to begin anew.

        Raises:
            TypeError: not integers.
            ValueError: no ids, ids of another shape, more than the cache holds, or ``keep`` larger
                than `length`.
            IndexError: an id outside the vocabulary.
            DeviceError: the device is lost.
        """
        self._prefill(self._check_prompt(ids, keep, 1), keep)

    def logits(self) -> NDArray[np.float32]:
        """Return the logits ``[vocab]`` from which the device has chosen last.

        After `prefill`, they are those of the id that follows the prompt.

        Raises:
            RuntimeError: there is no sequence yet.
        """
        if not self._length:
            raise RuntimeError("there are no logits yet: call prefill first")
        context = self.context
        result = np.empty(self.config.vocab, np.float32)
        with context.lock, context.guard, context.guard.busy:
            context.run([], self._memory.logits, result)
        return result

    def generate(
        self,
        ids: ArrayLike,
        max_new_tokens: int | None = None,
        *,
        keep: int = 0,
        end_of_text: Collection[int] | None = None,
        steps: int | None = None,
    ) -> Iterator[int]:
        """Return an iterator of the ids that follow ``ids``.

        The prompt is computed at once, the rest while the iterator is read, a submission ahead.

        Args:
            ids: the prompt, integers ``[n]``, at least one.
            max_new_tokens: the most ids to make; by default as many as the cache holds.
            keep: as in `prefill`.
            end_of_text: ids that end the text and are not part of it; by default the model's.
            steps: steps of a submission; by default 8, on a processor 1. The host reads ids
                that often; what was computed past the end of the text is dropped.

        Raises:
            TypeError, IndexError, DeviceError: as `prefill`.
            ValueError: as `prefill`; or more new ids than the cache has room for.
            RuntimeError: the iterator is read after the decoder began something else.
        """
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if steps is None:
            steps = 1 if self.context.is_software else 8
        if not 1 <= steps <= self._most_steps:
            raise ValueError(f"steps must be in 1..{self._most_steps}, not {steps}")
        prompt = self._check_prompt(ids, keep, 1 if max_new_tokens is None else max_new_tokens)
        end = frozenset(self.config.end_of_text if end_of_text is None else end_of_text)
        room = self.capacity - keep - len(prompt) + 1
        first = self._prefill(prompt, keep)
        return self._generate(first, max_new_tokens or room, end, steps, self._turn)

    def _generate(
        self, first: Submission, count: int, end: frozenset[int], steps: int, turn: int
    ) -> Iterator[int]:
        """Yield up to ``count`` ids, the first of which the submission ``first`` makes."""
        begun = self._length
        waiting, submitted, made = deque([first]), 1, 0
        while waiting:
            if turn != self._turn:
                raise RuntimeError(
                    "the decoder has begun another sequence: make another one to have two at once"
                )
            context = self.context
            with context.lock, context.guard, context.guard.busy:
                while submitted < count and len(waiting) < self._submissions.at_once:
                    batch = min(steps, count - submitted)
                    waiting.append(self._start_steps(begun + submitted - 1, batch))
                    submitted += batch
                found = self._submissions.read_first(waiting)
            check_drawn(found)
            for id_ in found.tolist():
                if id_ in end:
                    return
                made += 1
                self._length = begun + min(made, submitted - 1)
                yield id_
                if turn != self._turn:
                    break

    def _start_steps(self, position: int, count: int) -> Submission:
        """Begin to submit ``count`` steps, the first with the row at ``position``."""
        parts: list[Commands] = []
        for at in range(position, position + count):
            parts += (self._token.at(at), self._end)
        return self._submissions.start(parts, position + 1, count)

    def _prefill(self, prompt: NDArray[np.uint32], keep: int) -> Submission:
        """Submit the passes of a prompt, and return the last: it makes the id that follows."""
        context, memory = self.context, self._memory
        self._turn += 1
        with context.lock, context.guard, context.guard.busy:
            # Until the passes are submitted, nothing is known of the cache behind `keep`.
            self._length = keep
            queue = context.device.queue
            self._chooser.begin(lambda: np.concatenate([self._ids_so_far(keep), prompt]))
            queue.write_buffer(memory.ids, 4 * keep, prompt)
            for start in range(0, len(prompt), self._pass_rows[-1]):
                rows = min(self._pass_rows[-1], len(prompt) - start)
                passed = self._pass(rows)
                passed.write_sizes(rows)
                queue.write_buffer(memory.state, 0, np.array([keep + start, rows], np.uint32))
                parts = [passed.layers]
                if start + rows == len(prompt):
                    parts += (passed.last, self._token.head, self._end)
                    break
                self._submissions.submit(self._submissions.start(parts))
            last = self._submissions.start(parts, keep + len(prompt), 1)
            self._submissions.submit(last)
            self._length = keep + len(prompt)
            return last

    def _ids_so_far(self, count: int) -> NDArray[np.uint32]:
        """Return the first ids of the sequence, from the device."""
        if not count:
            return np.empty(0, np.uint32)
        found = self.context.device.queue.read_buffer(self._memory.ids, 0, 4 * count)
        return np.frombuffer(found, np.uint32)

    def _pass(self, rows: int) -> PromptSteps:
        """Return the smallest pass for so many rows, compiled when it is first needed."""
        size = next(size for size in self._pass_rows if rows <= size)
        found = self._passes.get(size)
        if found is None:
            found = self._passes[size] = PromptSteps(
                self.context, self.config, self._model, self._memory, size, self._accuracy
            )
        return found

    def _end_of_step(self, chooser: Chooser) -> Commands:
        """Return the commands from the logits to the next id of the sequence."""
        memory, token = self._memory, self._token
        logits = Logits(
            memory.logits,
            self.config.vocab,
            token.best,
            token.best_count,
            memory.ids,
            memory.state,
            memory.choice,
            self.capacity,
        )
        return Commands.of(chooser.steps(self.context, logits))

    def _check_prompt(self, ids: ArrayLike, keep: int, new: int) -> NDArray[np.uint32]:
        """Return a prompt, checked, after which ``new`` ids (at least one) are to be made."""
        found = check_indices(ids, self.config.vocab)
        if found.ndim != 1:
            raise ValueError(f"ids must have shape [n], not {list(found.shape)}")
        if not found.size:
            raise ValueError("ids must hold at least one id: the model has nothing to follow")
        if not 0 <= keep <= self._length:
            raise ValueError(
                f"keep must be in 0..{self._length}, the positions that are in the cache, "
                f"not {keep}"
            )
        # The last of the new ids needs no position: nothing follows it.
        needed = keep + found.size + new - 1
        if needed > self.capacity:
            raise ValueError(
                f"{keep} positions kept, {found.size} ids and {new} new ones need {needed} "
                f"positions; the cache holds {self.capacity}. Make the decoder with a larger "
                f"capacity, or ask for less"
            )
        return found.astype(np.uint32)
