"""How fast a whole model runs on the device: its prompt, its steps, and what they consist of."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from statistics import median

import numpy as np

from wgpu_q4.bench.timing import Clock, DeviceTimer, Effort
from wgpu_q4.decoder import Decoder
from wgpu_q4.device.pipelines import Step


@dataclass(frozen=True)
class Generated:
    """What one generation made, and its times in seconds.

    Attributes:
        ids: that were made.
        prompt: ids before them.
        prefill: from the prompt's ids to the first new one.
        decode: from the first new id to the last.
        host: of ``decode``, what the host spent on encoding.
    """

    ids: list[int]
    prompt: int
    prefill: float
    decode: float
    host: float

    @property
    def steps(self) -> int:
        """Ids made one by one: all but the first, which the prompt's pass makes."""
        return max(0, len(self.ids) - 1)

    @property
    def seconds(self) -> float:
        """The time of everything."""
        return self.prefill + self.decode


def generate(
    decoder: Decoder,
    prompt: list[int],
    count: int,
    *,
    end_of_text: Collection[int] | None = None,
    say: Callable[[int], None] | None = None,
) -> Generated:
    """Generate up to ``count`` ids and return them with their times.

    Args:
        decoder: it begins a new sequence.
        prompt: ids ``[n]``.
        count: the most new ids.
        end_of_text: as in `Decoder.generate`.
        say: gets each id as soon as it is known.
    """
    ids: list[int] = []
    start = time.perf_counter()
    made = decoder.generate(prompt, count, end_of_text=end_of_text)
    id_ = next(made, None)
    begun, host = time.perf_counter(), decoder._engine.submissions.seconds
    while id_ is not None:
        ids.append(id_)
        if say is not None:
            say(id_)
        id_ = next(made, None)
    end, host = time.perf_counter(), decoder._engine.submissions.seconds - host
    return Generated(ids, len(prompt), begun - start, end - begun, host)


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the parts of a step on the device, each measured by itself.

    Attributes:
        clock: how they were taken.
        embedding, layers, head: of the step; the choice of the next id is left out.
        dispatches: of the three.
    """

    clock: Clock
    embedding: float
    layers: float
    head: float
    dispatches: int


def step_times(decoder: Decoder, effort: Effort) -> StepTimes:
    """Measure the step that would follow the decoder's sequence; nothing of it is kept."""
    context = decoder.context
    with context.lock, context.guard, context.guard.busy:
        timer = DeviceTimer(context, effort)
        steps = []
        for command in decoder._engine.token.at(decoder.length).in_order:
            (bind_group,) = command.bind_groups
            steps.append(Step(command.pipeline, bind_group, command.workgroups))
        parts = [steps[:1], steps[1:-1], steps[-1:]]
        embedding, layers, head = (timer.measure([part]).median for part in parts)
    return StepTimes(timer.clock, embedding, layers, head, len(steps))


@dataclass(frozen=True)
class Rates:
    """Ids a second of one sequence: medians.

    Attributes:
        prefill: of a prompt.
        decode: of ids made one by one, behind a prompt of one id: those of a whole generation in
            its time less that of the first id.  The time from the first id to the last would leave
            out steps that the device takes before the host has the first.
        host: seconds of the host for each of these.
    """

    prefill: float
    decode: float
    host: float


def rates(decoder: Decoder, prompt: int, count: int, repeats: int) -> Rates:
    """Measure a prompt of so many random ids, and the generation of ``count`` ids."""
    ids = np.random.default_rng(3).integers(0, decoder.config.vocab, prompt).tolist()
    generate(decoder, ids, 1, end_of_text=())  # compiles
    generate(decoder, ids[:1], 3, end_of_text=())
    prefills = [generate(decoder, ids, 1, end_of_text=()).prefill for _ in range(repeats)]
    firsts = [generate(decoder, ids[:1], 1, end_of_text=()).seconds for _ in range(repeats)]
    decodes = [generate(decoder, ids[:1], count + 1, end_of_text=()) for _ in range(repeats)]
    return Rates(
        prompt / median(prefills),
        count / (median(made.seconds for made in decodes) - median(firsts)),
        median(made.host for made in decodes) / count,
    )
