"""A decoder that draws: by seed, by mask, with a penalty for ids that were there before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.decoder_oracle import PLAIN, logits_of, random_weights
from tests.devices import HANGS, run_on_swiftshader
from tests.gpu.test_sampling import distribution, philox
from wgpu_q4 import DeviceError
from wgpu_q4.decoder import Decoder, Draw, Sampling

PROMPT = [5, 17, 3, 99]
WEIGHTS = random_weights(PLAIN)


def decoder_of(chooser: Draw) -> Decoder:
    return Decoder(WEIGHTS, cache="float32", capacity=64, chooser=chooser)


def texts(chooser: Draw, count: int = 20, **options: Any) -> Iterator[list[int]]:
    decoder = decoder_of(chooser)
    while True:
        yield list(decoder.generate(PROMPT, count, end_of_text=(), **options))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=3.0, seed=1),
        Sampling(temperature=2.0, top_p=0.8, seed=2),
        Sampling(temperature=2.0, top_k=9, min_p=0.01, seed=3),
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [1, 7])
def test_each_id_is_drawn_from_the_logits_of_float64(sampling: Sampling, steps: int) -> None:
    made = next(texts(Draw(sampling), steps=steps))
    logits = logits_of(WEIGHTS, [*PROMPT, *made])[len(PROMPT) - 1 : -1]
    for position, (id_, row) in enumerate(zip(made, logits, strict=True), len(PROMPT)):
        order, shares = distribution(row.astype(np.float32), sampling)
        ends, number = np.cumsum(shares), philox(position, 0, sampling.seed) / 2**32
        place = order.tolist().index(id_)
        # the logits of the device are float32's
        assert ends[place] - shares[place] - 1e-4 <= number <= ends[place] + 1e-4, position
    assert len(set(made)) > 8


def test_the_same_seed_writes_the_same_text() -> None:
    def text(seed: int) -> list[int]:
        return next(texts(Draw(Sampling(temperature=2.0, seed=seed))))

    assert text(1) == text(1) != text(2)
    again = texts(Draw(Sampling(temperature=2.0, seed=1)))
    assert [next(again) for _ in range(3)] == [text(1)] * 3


def texts_here() -> list[list[int]]:
    """A text of each way to draw."""
    ways: list[dict[str, Any]] = [{}, {"top_p": 0.8}, {"top_k": 9, "min_p": 0.01}]
    return [next(texts(Draw(Sampling(temperature=2.0, **way)), 50)) for way in ways]


def test_the_same_seed_writes_the_same_text_on_both_drivers() -> None:
    said = run_on_swiftshader("tests.gpu.test_decoder_draws", "wgpu")
    assert said.strip() == str(texts_here())


def test_a_text_in_parts_is_the_text_in_one() -> None:
    """No part draws with the random numbers of another."""
    decoder = decoder_of(Draw(Sampling(temperature=2.0, seed=1)))
    whole = list(decoder.generate(PROMPT, 20, end_of_text=()))
    made = list(decoder.generate(PROMPT[2:], 1, keep=2, end_of_text=()))
    while len(made) < 20:
        made += decoder.generate(made[-1:], 1, keep=decoder.length, end_of_text=())
    assert made == whole


def test_one_of_the_best_is_the_greedy_text() -> None:
    greedy = Decoder(WEIGHTS, cache="float32", capacity=64)
    expected = list(greedy.generate(PROMPT, 20, end_of_text=()))
    assert next(texts(Draw(Sampling(top_k=1)))) == expected


def test_a_mask_is_never_violated() -> None:
    draw = Draw(Sampling(temperature=5.0))
    allowed = np.random.default_rng(0).random(128) < 0.2
    draw.allow(np.packbits(allowed, bitorder="little").view(np.int32))
    assert allowed[next(texts(draw, 50))].all()
    draw = Draw(Sampling())
    draw.allow(np.zeros(4, np.int32))
    with pytest.raises(DeviceError, match="no id can be drawn"):
        next(texts(draw))


@pytest.mark.parametrize("steps", [None, 1])
def test_a_mask_that_depends_on_the_id_before(steps: int | None) -> None:
    """Each id must be larger than the one before by 1 to 3: no two ids allow the same."""
    draw = Draw(Sampling(temperature=5.0))

    def allow(after: int) -> None:
        bits = np.isin(np.arange(128), [(after + more) % 101 for more in (1, 2, 3)])
        draw.allow(np.packbits(bits, bitorder="little").view(np.int32))

    allow(PROMPT[-1])
    made = [PROMPT[-1]]
    decoder = decoder_of(draw)
    for id_ in decoder.generate(PROMPT, 40, end_of_text=(), steps=steps, ahead=False):
        allow(id_)
        made.append(id_)
        assert decoder.length == len(PROMPT) + len(made) - 2
    assert len(made) == 41
    assert set(np.diff(made) % 101) == {1, 2, 3}


def test_steps_that_are_not_ahead_make_the_same_text() -> None:
    expected = next(texts(Draw(Sampling(temperature=2.0))))
    for steps in (1, 3, 64):
        assert next(texts(Draw(Sampling(temperature=2.0)), steps=steps, ahead=False)) == expected


def test_a_penalty_counts_the_prompt_and_what_was_drawn() -> None:
    """A large one lets no id come twice, as long as there are others."""
    draw = Draw(Sampling(top_k=1, repetition_penalty=1e4))
    for made in (next(texts(draw, 40)),):
        assert len({*PROMPT, *made}) == len(PROMPT) + 40
    decoder = decoder_of(Draw(Sampling(top_k=1, repetition_penalty=1e4)))
    first = list(decoder.generate(PROMPT, 10, end_of_text=()))
    kept = len(PROMPT) + 9
    more = list(decoder.generate(first[-1:], 20, keep=kept, end_of_text=()))
    assert len({*PROMPT, *first, *more}) == len(PROMPT) + 30


def test_a_mask_waits_for_the_calls_of_other_threads() -> None:
    """A queue is used by one thread at a time."""
    draw = Draw(Sampling())
    decoder = decoder_of(draw)
    allowed = threading.Thread(target=draw.allow, args=(np.full(4, -1, np.int32),), daemon=True)
    with decoder.context.lock:
        allowed.start()
        allowed.join(0.2)
        assert allowed.is_alive()
    allowed.join(HANGS)
    assert not allowed.is_alive()


def test_a_draw_serves_one_decoder() -> None:
    draw = Draw(Sampling())
    decoder_of(draw)
    with pytest.raises(RuntimeError, match="serves one Decoder"):
        decoder_of(draw)


if __name__ == "__main__":  # on SwiftShader, by the test of both drivers
    print(texts_here())
