"""A `Sampler`: what the draw of one id after another keeps on a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, to_numpy
from wgpu_q4.device.context import context_for
from wgpu_q4.device.pipelines import BindGroups, Step
from wgpu_q4.errors import DeviceError
from wgpu_q4.kernels.decoder.sampling import (
    NO_ID,
    SETTINGS_BYTES,
    Sampling,
    SamplingPlan,
    plan_sampling,
)

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context

_WORD = 32


class Sampler:
    """Draws ids from rows of logits on one device; the logits stay there.

    A step's random number depends on the seed, the number of the step, and the row: the same seed
    draws the same ids.

    Args:
        context: of the device.
        vocab: logits of a row.
        sampling: how ids are drawn.
        rows: rows of logits of a step.

    Attributes:
        nbytes: bytes held on the device.
    """

    def __init__(self, context: Context, vocab: int, sampling: Sampling, rows: int = 1) -> None:
        self.sampling, self.vocab, self.rows = sampling, vocab, rows
        self._context = context
        self._words = -(-vocab // _WORD)
        self._plan: SamplingPlan = context.plan(
            plan_sampling, vocab, rows, sampling.top_k, sampling.top_p < 1
        )
        sizes = dict(self._plan.nbytes)
        sizes |= {"t_seen": rows * self._words * 4, "t_allowed": rows * self._words * 4}
        sizes |= {"t_state": 4}
        self._buffers: dict[str, Any] = {
            name: context.create_buffer(f"wgpu_q4 sampling {name}", size, "STORAGE", "COPY_DST")
            for name, size in sizes.items()
        }
        for name, size in (("settings", SETTINGS_BYTES), ("sizes", 16)):
            self._buffers[name] = context.create_buffer(
                f"wgpu_q4 sampling {name}", size, "UNIFORM", "COPY_DST"
            )
        self.nbytes = sum(sizes.values()) + SETTINGS_BYTES + 16
        self._bind_groups: BindGroups = {}
        context.write(self._buffers["sizes"], np.array([rows, 0, 0, self._plan.slots], np.uint32))
        self.restart()
        self.allow(None)

    def restart(self, history: Iterable[int] = (), step: int = 0) -> None:
        """Forget the ids that were there before, and count steps anew.

        Args:
            history: ids that count as there before, in every row.
            step: the number of the next step.

        Raises:
            IndexError: an id outside the vocabulary.
        """
        ids = np.fromiter(history, np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < self.vocab):
            raise IndexError(f"history has an id outside 0 … {self.vocab - 1}")
        seen = np.zeros(self._words * _WORD, bool)
        seen[ids] = True
        words = np.packbits(seen, bitorder="little").view(np.uint32)
        self._context.write(self._buffers["t_seen"], np.tile(words, self.rows))
        # a step counts before it draws
        self._context.write(self._buffers["t_state"], np.array([step - 1], np.int64).astype("u4"))

    def allow(self, mask: ArrayLike | None) -> None:
        """Let later steps draw the ids of a mask, and no others.

        Args:
            mask: int32 or uint32 ``[⌈V / 32⌉]`` or ``[rows, ⌈V / 32⌉]``, bit i % 32 of word i // 32
                for id i, as grammar libraries write it; None allows all ids.

        Raises:
            ValueError: another shape or dtype.
        """
        if mask is not None:
            words = np.ascontiguousarray(to_numpy(mask, "mask"))
            shapes = (self._words,), (self.rows, self._words)
            if words.dtype not in (np.int32, np.uint32) or words.shape not in shapes:
                raise ValueError(
                    f"mask must be int32 or uint32 [{self._words}] or [{self.rows}, {self._words}]"
                    f", a bit for each of {self.vocab} ids, not {words.dtype} {list(words.shape)}"
                )
            words = np.broadcast_to(words, (self.rows, self._words))
            self._context.write(self._buffers["t_allowed"], np.ascontiguousarray(words))
        settings = self.sampling.settings(self.vocab, self.rows, mask is not None)
        self._context.write(self._buffers["settings"], settings)

    def steps(self, logits: Any, ids: Any) -> list[Step]:
        """Return the steps of one draw, which may be recorded any number of times.

        Args:
            logits: buffer, float32 ``[rows, V]``.
            ids: buffer, uint32 ``[rows, 2]``: the bits of the adjusted logit, and its id, which is
                2^32 − 1 if none may be drawn.
        """
        callers: Mapping[str, Any] = {"logits": logits, "ids": ids}
        steps = []
        for stage in self._plan.stages:
            resources = dict(self._buffers)
            for binding, name in (("t_in", stage.reads), ("t_out", stage.writes)):
                if name:
                    resources[binding] = callers[name] if name in callers else self._buffers[name]
            pipelines = self._context.pipelines
            steps.append(pipelines.step(stage.dispatch, resources, self._bind_groups))
        return steps

    def draw(self, logits: ArrayLike) -> NDArray[np.int64]:
        """Return one id of each row of logits that are on the host, and count a step.

        Args:
            logits: float32 ``[rows, V]``.

        Raises:
            ValueError: another shape.
            DeviceError: a row in which no id may be drawn.
        """
        values = np.ascontiguousarray(to_numpy(logits, "logits"), np.float32)
        if values.shape != (self.rows, self.vocab):
            raise ValueError(
                f"logits must be [rows, V] = [{self.rows}, {self.vocab}], not {list(values.shape)}"
            )
        context, found = context_for(self._context.device), np.empty((self.rows, 2), np.uint32)
        with context.lock, context.guard, context.guard.busy:
            source = context.scratch.input("logits to draw from", values)
            ids = context.scratch.result("ids", found.nbytes)
            context.run(self.steps(source, ids), ids, found)
        check_drawn(found[:, 1])
        return found[:, 1].astype(np.int64)


def check_drawn(ids: NDArray[Any]) -> None:
    """Raise if a row had no id to draw.

    Raises:
        DeviceError: the mask allows no id, or all logits that it allows are −∞ or NaN.
    """
    if (ids == NO_ID).any():
        raise DeviceError(
            "no id can be drawn: the mask allows none, or all logits that it allows are −∞ or NaN. "
            "Keys and values beyond 65504 make NaN of a decoder whose cache is in float16: "
            "cache='float32' holds them"
        )
