"""The draw of ids from logits: how a `Sampling` becomes settings, and the dispatches of a draw.

With a top-k, `wgpu_q4.kernels.reduction` keeps the k best logits, and one workgroup a row draws
from them.  Without, all logits take part: the end of the nucleus (top-p) is found digit by digit,
and the draw finds first the slice, then the id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.kernels.dispatch import Dispatch, fold
from wgpu_q4.kernels.reduction import LARGEST_TOP_K, plan_reduce
from wgpu_q4.kernels.wgsl import Shader

NO_ID = 0xFFFFFFFF
"""The answer of a row in which no id may be drawn."""

SETTINGS_BYTES = 48
HISTOGRAM_BYTES = 8192
"""Bytes of the histograms of a row."""

_LEVELS = 4
_SLICE = 2048
_MOST_SLICES = 256
_ALLOWED, _PENALIZED = 1, 2
_LEAST = 1e-30
"""Of what is divided by: float32 holds what comes out."""


@dataclass(frozen=True)
class Sampling:
    """How the next id is drawn from logits.

    The steps are those of Hugging Face's ``generate``, in its order: repetition penalty, mask,
    temperature, top-k, top-p, min-p.  Logits that equal the last one that top-p keeps are kept,
    too; of equal logits at the end of top-k, those with the lowest ids are.

    Attributes:
        temperature: divides the logits; 1e-30 or more.  ``top_k=1`` takes the best id.
        top_k: how many of the best ids take part, 1 … 1024; None for all.
        top_p: the best ids that make up this share of the probability take part, in (0, 1].
        min_p: ids of less than this share of the best one's probability take no part, in [0, 1].
        repetition_penalty: divides the positive logits of ids that were there before, and
            multiplies the negative ones; in 1e-30 … 1e30, and 1 for none.
        seed: of the random numbers, 0 … 2^64 − 1.

    Raises:
        TypeError: a value that is no number, or no integer where it must be one.
        ValueError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check("temperature", lambda x: _LEAST <= x < math.inf, f"finite, {_LEAST} or more")
        self._check("top_p", lambda x: 0 < x <= 1, "above 0 and at most 1")
        self._check("min_p", lambda x: 0 <= x <= 1, "in 0 … 1")
        within = f"in {_LEAST} … {1 / _LEAST}"
        self._check("repetition_penalty", lambda x: _LEAST <= x <= 1 / _LEAST, within)
        self._check("seed", lambda x: 0 <= x < 1 << 64, "in 0 … 2^64 − 1", Integral)
        if self.top_k is not None:
            allowed = f"in 1 … {LARGEST_TOP_K}, or None for all ids"
            self._check("top_k", lambda x: 1 <= x <= LARGEST_TOP_K, allowed, Integral)

    def _check(
        self, name: str, is_right: Callable[[Any], bool], allowed: str, kind: Any = Real
    ) -> None:
        """Raise unless a number is right, and keep it as one of Python's."""
        value = getattr(self, name)
        if not isinstance(value, kind):
            noun = "an integer" if kind is Integral else "a number"
            raise TypeError(f"{name} must be {noun}, not {value!r}")
        if not is_right(value):
            raise ValueError(f"{name} must be {allowed}, not {value!r}")
        object.__setattr__(self, name, int(value) if kind is Integral else float(value))

    @property
    def penalizes(self) -> bool:
        """True if ids that were there before are treated differently."""
        return self.repetition_penalty != 1

    def settings(self, vocab: int, rows: int, is_masked: bool) -> NDArray[np.uint32]:
        """Return the words of ``decoder/sample/settings.wgsl``, uint32 ``[12]``."""
        bits = weight_bits(vocab)
        floats = np.array(
            [
                math.log2(math.e) / self.temperature,
                self.repetition_penalty,
                1 / self.repetition_penalty,
            ],
            np.float32,
        )
        flags = (_ALLOWED if is_masked else 0) | (_PENALIZED if self.penalizes else 0)
        return np.array(
            [
                *(rows, 0, self.seed & 0xFFFFFFFF, self.seed >> 32),
                *(*floats.view(np.uint32), flags),
                *(round(self.top_p * 2**31), math.ceil(self.min_p * 2**bits), bits, 0),
            ],
            np.uint32,
        )


def weight_bits(vocab: int) -> int:
    """Return the exponent of the largest weight: the sum of all stays below 2^48."""
    return min(29, 47 - (vocab - 1).bit_length())


@dataclass(frozen=True)
class Stage:
    """One dispatch of a draw.

    Attributes:
        dispatch: what runs.
        reads, writes: the names of the buffers that it binds as ``t_in`` and ``t_out``; others are
            bound by the names of their bindings.
    """

    dispatch: Dispatch
    reads: str
    writes: str


@dataclass(frozen=True)
class SamplingPlan:
    """The dispatches of a draw, in order, and the bytes of the buffers between them.

    Attributes:
        stages: the dispatches; ``"logits"`` and ``"ids"`` name the caller's buffers.
        nbytes: by the names of the other buffers.
        slots: of the reduction, see `ReducePlan`; 0 without a top-k.
    """

    stages: tuple[Stage, ...]
    nbytes: Mapping[str, int]
    slots: int = 0


@cache
def sampling_shader(body: str) -> Shader:
    """Return a kernel of ``decoder/sample/``, by the name of the piece with its ``main``."""
    row = ("weigh", "scan", "row")
    nucleus = ("share", "nucleus")
    end = ("philox", "answer")
    pieces: dict[str, tuple[str, ...]] = {
        "adjust": (),
        "digits": (*row, *nucleus),
        "masses": (*row, *nucleus, "kept"),
        "draw": (*row, *nucleus, "kept", *end),
        "draw_best": ("weigh", "scan", "share", *end),
    }
    summaries = {
        "adjust": "the logits that a draw starts from: masked and penalized",
        "digits": "the histogram of one level of the nucleus",
        "masses": "the weight of each slice of the ids that take part in a draw",
        "draw": "one id of each row, drawn from all that take part",
        "draw_best": "one id of each row, drawn from the k best",
    }
    first = () if body == "draw_best" else ("reduce/order",)
    names = (*(("wide",) if body != "adjust" else ()), "settings", *pieces[body], body)
    own = tuple(f"decoder/sample/{name}" for name in names)
    return Shader(f"sample_{body}", (*first, *own), summaries[body])


def sampling_shaders() -> Iterator[Shader]:
    """Yield every kernel of a draw but those of the reduction."""
    for body in ("adjust", "digits", "masses", "draw", "draw_best"):
        yield sampling_shader(body)


def plan_sampling(
    vocab: int, rows: int, top_k: int | None, nucleus: bool, limits: Mapping[str, int]
) -> SamplingPlan:
    """Return the dispatches that draw one id from each of ``rows`` rows of ``vocab`` logits.

    Args:
        vocab: logits of a row, at most 2^24.
        rows: at least 1.
        top_k: as in `Sampling`; as many as there are logits if there are fewer.
        nucleus: True if there is a top-p.
        limits: the device's.
    """
    slice_ = max(_SLICE, -(-vocab // _MOST_SLICES // 256) * 256)
    slices = -(-vocab // slice_)
    constants = {"COLUMNS": vocab, "SLICE": slice_}
    of_slices, of_rows = fold(rows * slices, limits), fold(rows, limits)
    nbytes = {
        "adjusted": rows * vocab * 4,
        "t_best": rows * slices * 4,
        "t_histograms": rows * HISTOGRAM_BYTES,
    }

    def of_all(body: str, **more: int) -> Dispatch:
        return Dispatch(sampling_shader(body), constants | more, of_slices)

    stages = [Stage(of_all("adjust"), "logits", "adjusted")]
    if top_k is not None:
        kept = min(top_k, vocab)
        reduction = plan_reduce((vocab,), rows, "top_k", kept, limits)
        source = "adjusted"
        pairs = zip(reduction.stages, reduction.stage_bytes, strict=True)
        for number, (dispatch, stage_bytes) in enumerate(pairs):
            target = f"candidates {number % 2}"
            nbytes[target] = max(stage_bytes, nbytes.get(target, 0))
            stages.append(Stage(dispatch, source, target))
            source = target
        draw = Dispatch(sampling_shader("draw_best"), {"VOCAB": vocab, "KEPT": kept}, of_rows)
        stages.append(Stage(draw, source, "ids"))
        return SamplingPlan(tuple(stages), nbytes, reduction.slots)
    if nucleus:
        for level in range(_LEVELS):
            stages.append(Stage(of_all("digits", LEVEL=level), "adjusted", ""))
    nbytes["t_masses"] = rows * slices * 8
    stages.append(Stage(of_all("masses", NUCLEUS=int(nucleus)), "adjusted", "t_masses"))
    draw = Dispatch(sampling_shader("draw"), constants | {"NUCLEUS": int(nucleus)}, of_rows)
    stages.append(Stage(draw, "adjusted", "ids"))
    return SamplingPlan(tuple(stages), nbytes)
