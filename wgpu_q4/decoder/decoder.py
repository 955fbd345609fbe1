"""`Decoder`: a language model that runs on the device, from ids to ids."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import rich
from wgpu_q4.arrays import ArrayLike
from wgpu_q4.decoder.arguments import check_chooser, check_weights, end_ids, whole
from wgpu_q4.decoder.choose import Chooser, Greedy
from wgpu_q4.decoder.engine import Engine, Options
from wgpu_q4.decoder.sampler import check_drawn
from wgpu_q4.decoder.submission import Submission
from wgpu_q4.decoder.token import MOST_SLICES
from wgpu_q4.decoder.weights import Body, Weights
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.kernels import Accuracy
from wgpu_q4.kernels.decoder import CacheDtype, WeightType
from wgpu_q4.ops.arguments import check_indices, check_option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from wgpu_q4.files.regular import StrPath

DEFAULT_CAPACITY = 4096
"""Positions of the cache where the caller names none and the model allows as many."""

_FIRST_STEPS = 4
"""Steps of the first submission, at most."""


class Decoder:
    """A decoder of the Llama family on one device.

    Everything that a token needs stays there: its id, its embedding, the layers with their cache,
    the head, and the choice of the next id.  The host encodes several steps at a time and reads
    their ids while the next ones run::

        decoder = Decoder.from_gguf("model.gguf")
        for id in decoder.generate(prompt_ids, max_new_tokens=100):
            ...

    The matrix of the embedding, which is the head too if it is tied, is the copy that
    `wgpu_q4.embedding` and `wgpu_q4.linear` read.  The numbers of the layers are in 4 bits, 8
    bits or float16, and all arithmetic is float32.

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
                passes take; by default 512, on a processor 32.  There are passes of 32, 64, 128,
                256 and 512 rows, and that of 32 is there in any case.
            slices: workgroups that share the positions which a head looks at, once there are more
                than 512, at most 64; by default one for each 128, on a processor 1 in all.
            most_steps: the most steps of a submission.

        Raises:
            TypeError: no `Weights`, no `Chooser`, or a number that is no integer.
            ValueError: an option that does not exist, or a number out of range.
            FormatError: a matrix that the kernels cannot read.
            DeviceError: no such device.
            DeviceLimitError: a buffer would be larger than the device allows.
        """
        check_weights(weights)
        config = weights.config
        check_option("cache", cache, ("float16", "float32"))
        check_option("accuracy", accuracy, get_args(Accuracy))
        if capacity is None:
            capacity = min(config.positions, DEFAULT_CAPACITY)
        why = ", the positions that the model was made for"
        capacity = whole("capacity", capacity, 1, config.positions, why)
        if prompt_rows is not None:
            prompt_rows = whole("prompt_rows", prompt_rows, 1)
        if slices is not None:
            slices = whole("slices", slices, 1, MOST_SLICES)
        most_steps = whole("most_steps", most_steps, 1)
        chooser = Greedy() if chooser is None else chooser
        check_chooser(chooser)
        self.config, self.embedding, self.capacity = config, weights.embedding, capacity
        self.context: Context = context_for(device)
        self._most_steps, self._length, self._turn = most_steps, 0, 0
        options = Options(
            capacity=capacity,
            cache=cache,
            chooser=chooser,
            accuracy=accuracy,
            prompt_rows=prompt_rows,
            slices=slices,
            most_steps=most_steps,
        )
        with self.context.lock, self.context.guard, self.context.guard.busy:
            self._engine = Engine(self.context, weights, options)

    @classmethod
    def from_gguf(cls, path: StrPath, **options: Any) -> Decoder:
        """Read a model from a GGUF file; its layers stay in the file's 4 or 8 bits where they can.

        A matrix of Q4_0, Q4_1 or Q8_0 keeps its numbers.  A matrix of any other type is dequantized
        and rounded to float16, and so are matrices of several types that are one on the device
        (queries, keys and values; gate and up).  The embedding, and a head of its own, are
        quantized to 4 bits as by `wgpu_q4.from_gguf`.

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
        body: Body = "float16",
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

        check_option("body", body, get_args(Body))
        return cls(weights_of_model(model, body, group_size), **options)

    @property
    def length(self) -> int:
        """Positions of the sequence whose keys and values are in the cache."""
        return self._length

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes on the device of embedding and head, of the layers, of the cache, and of others."""
        return self._engine.nbytes

    @property
    def layer_types(self) -> tuple[WeightType, ...]:
        """The types of the layers' matrices: as a rule one, which is in most of them if not."""
        return self._engine.model.layer_types

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a Decoder cannot be pickled or copied by Python: its cache lies on a device. Make "
            "another one of the same weights"
        )

    def __repr__(self) -> str:
        config = self.config
        return (
            f"Decoder({config.family}, {config.layers} layers, {config.vocab}×{config.hidden}, "
            f"capacity {self.capacity}, {sum(self.nbytes.values()):,} bytes)"
        )

    def _repr_html_(self) -> str:
        config = self.config
        rows: list[rich.Row] = [
            ("model", f"{config.family}, {config.layers} layers"),
            ("matrix", f"{config.vocab:,} × {config.hidden:,}"),
            ("device", self.context.adapter_summary),
            ("positions", f"{self.length:,} of {self.capacity:,}"),
            *self.nbytes.items(),
        ]
        return rich.table("Decoder", rows)

    def prefill(self, ids: ArrayLike, *, keep: int = 0) -> None:
        """Begin a sequence with ``ids``; what follows them is computed, and chosen, too.

        Args:
            ids: integers ``[n]``, at least one.
            keep: positions of the present sequence that come before ``ids``; 0 to begin anew.

        Raises:
            TypeError: no integers.
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
        context = context_for(self.context.device)
        result = np.empty(self.config.vocab, np.float32)
        with context.lock, context.guard, context.guard.busy:
            context.run([], self._engine.memory.logits, result)
        return result

    def generate(
        self,
        ids: ArrayLike,
        max_new_tokens: int | None = None,
        *,
        keep: int = 0,
        end_of_text: Collection[int] | int | None = None,
        steps: int | None = None,
        ahead: bool = True,
    ) -> Iterator[int]:
        """Return an iterator of the ids that follow ``ids``.

        The prompt is computed at once, the rest while the iterator is read, a submission ahead::

            for id in decoder.generate(ids, ahead=False):
                draw.allow(grammar.mask_after(id))  # of the next id

        Args:
            ids: the prompt, integers ``[n]``, at least one.
            max_new_tokens: the most ids to make; by default as many as the cache holds.
            keep: as in `prefill`.
            end_of_text: ids that end the text and are not part of it; by default the model's.
            steps: steps of a submission; by default 8, and on a processor 1. The host reads ids
                that often, the first ones sooner; what was computed past the end of the text is
                dropped.
            ahead: False to submit nothing before it is asked for, so that a mask which depends on
                an id (`Draw.allow`) holds for the next one; ``steps`` is then 1 if not given. It
                costs the time of a round trip for each submission.

        Raises:
            TypeError, IndexError, DeviceError: as `prefill`.
            ValueError: as `prefill`; or more new ids than the cache has room for.
            RuntimeError: the iterator is read after the decoder began something else.
        """
        if max_new_tokens is not None:
            max_new_tokens = whole("max_new_tokens", max_new_tokens, 1)
        if steps is None:
            steps = min(self._usual_steps() if ahead else 1, self._most_steps)
        steps = whole("steps", steps, 1, self._most_steps)
        end = frozenset(self.config.end_of_text)
        if end_of_text is not None:
            end = end_ids(end_of_text, self.config.vocab)
        prompt = self._check_prompt(ids, keep, 1 if max_new_tokens is None else max_new_tokens)
        room = self.capacity - keep - len(prompt) + 1
        first, turn = self._prefill(prompt, keep)
        return self._generate(first, max_new_tokens or room, end, steps, turn, ahead)

    def _usual_steps(self) -> int:
        """Return the steps of a submission: on a GPU some ms, whose end costs it some µs."""
        return 1 if self.context.is_software else 8

    def _generate(
        self,
        first: Submission,
        count: int,
        end: frozenset[int],
        steps: int,
        turn: int,
        ahead: bool,
    ) -> Iterator[int]:
        """Yield up to ``count`` ids, the first of which the submission ``first`` makes."""
        begun, at_once = self._length, self._engine.submissions.at_once if ahead else 1
        waiting, submitted, made = deque([first]), 1, 0
        # Each submission may be twice as long as the one before: the first ids come at once, and
        # the device computes for longer than the host needs to encode the next.
        pace = _FIRST_STEPS
        while waiting or submitted < count:
            context, engine = context_for(self.context.device), self._engine
            with context.lock, context.guard, context.guard.busy:
                if turn != self._turn:
                    raise RuntimeError(
                        "the decoder has begun another sequence: make another one to have two at "
                        "once"
                    )
                while submitted < count and len(waiting) < at_once:
                    batch = min(steps, pace, count - submitted)
                    pace *= 2
                    waiting.append(engine.start_steps(begun + submitted - 1, batch))
                    submitted += batch
                found = engine.submissions.read_first(waiting)
            check_drawn(found)
            for id_ in found.tolist():
                if id_ in end:
                    return
                made += 1
                with context.lock:
                    if turn == self._turn:
                        self._length = begun + min(made, submitted - 1)
                yield id_
                if turn != self._turn:
                    break

    def _prefill(self, prompt: NDArray[np.uint32], keep: int) -> tuple[Submission, int]:
        """Submit a prompt, and return what makes the id that follows it, and whose turn it is."""
        context = context_for(self.context.device)
        with context.lock, context.guard, context.guard.busy:
            self._turn += 1
            # Until the prompt is submitted, nothing is known of the cache behind `keep`.
            self._length = keep
            last = self._engine.submit_prompt(prompt, keep)
            self._length = keep + len(prompt)
            return last, self._turn

    def _check_prompt(self, ids: ArrayLike, keep: int, new: int) -> NDArray[np.uint32]:
        """Return a prompt, checked, after which ``new`` ids (at least one) are to be made."""
        keep = whole("keep", keep, 0, self._length, ", the positions that are in the cache")
        found = check_indices(ids, self.config.vocab, "ids")
        if found.ndim != 1:
            raise ValueError(f"ids must have shape [n], not {list(found.shape)}")
        if not found.size:
            raise ValueError("ids must hold at least one id: the model has nothing to follow")
        # The last of the new ids needs no position: nothing follows it.
        needed = keep + found.size + new - 1
        if needed > self.capacity:
            raise ValueError(
                f"{keep} positions kept, {found.size} ids and {new} new ones need {needed} "
                f"positions; the cache holds {self.capacity}. Make the decoder with a larger "
                f"capacity, or ask for less"
            )
        return found.astype(np.uint32)
