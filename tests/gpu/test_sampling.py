"""Ids drawn on the device: the distribution that numpy computes in float64, masks, seeds, edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.devices import run_on_swiftshader
from wgpu_q4 import DeviceError
from wgpu_q4.decoder.sampler import Sampler
from wgpu_q4.device import context_for
from wgpu_q4.kernels.decoder.sampling import Sampling

SETTINGS = [
    Sampling(),
    Sampling(temperature=0.3, seed=(1 << 64) - 1),
    Sampling(top_p=0.9, seed=1),
    Sampling(top_p=0.05, seed=2),
    Sampling(min_p=0.2, seed=3),
    Sampling(temperature=1.5, top_p=0.7, min_p=0.01, seed=4),
    Sampling(top_k=1, seed=5),
    Sampling(top_k=40, seed=6),
    Sampling(temperature=0.7, top_k=50, top_p=0.8, min_p=0.02, seed=7),
    Sampling(top_k=1024, top_p=0.95, seed=8),
]

NEAR = 1e-6
"""A share that float32's difference of two logits, and the integers that weights are rounded to,
may move: 2^-24 of the largest |logit · scale|, some 20 here, and less than 2^-27 · V."""


def random_logits(vocab: int, rows: int = 1, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((rows, vocab)) * 2).astype(np.float32)


def philox(step: int, row: int, seed: int) -> int:
    """The first word of Philox4x32-10, in plain integers."""
    words, key = [step, row, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [
            second >> 32 ^ words[1] ^ key[0],
            second & 0xFFFFFFFF,
            first >> 32 ^ words[3] ^ key[1],
            first & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return words[0]


def test_philox_has_its_published_answer() -> None:
    """Random123's known answers for a counter and a key of zeros, and of ones."""
    assert philox(0, 0, 0) == 0x6627E8D5


def distribution(logits: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[Any], ...]:
    """Ids in the order in which they are laid side by side, and the share of each, in float64."""
    scaled = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")[: sampling.top_k]
    shares = np.exp(scaled[order] - scaled.max())
    shares /= shares.sum()
    before = np.cumsum(shares) - shares
    if len(order) < 10_000:  # among more, one id at the end changes no share by more than that
        assert np.abs(before - sampling.top_p).min() > NEAR or sampling.top_p == 1
    shares[before >= sampling.top_p] = 0
    apart = np.abs(shares[1:] / shares[0] - sampling.min_p).min(initial=1)
    assert apart > NEAR or sampling.min_p == 0
    shares[shares < sampling.min_p * shares[0]] = 0
    if sampling.top_k is None:  # laid in the order of the ids
        back = np.argsort(order)
        order, shares = order[back], shares[back]
    return order, shares / shares.sum()


def check_draws(
    draws: list[int], logits: NDArray[np.float32], sampling: Sampling, row: int = 0
) -> None:
    """Each draw is the id in whose share of 0 … 1 the random number of its step lies."""
    order, shares = distribution(logits, sampling)
    ends = np.cumsum(shares)
    place_of = {int(id_): place for place, id_ in enumerate(order)}
    for step, drawn in enumerate(draws):
        number = philox(step, row, sampling.seed) / 2**32
        place = place_of[drawn]
        assert shares[place] > 0, f"step {step}: {drawn} takes no part"
        assert ends[place] - shares[place] - NEAR <= number <= ends[place] + NEAR, step


@pytest.mark.parametrize("vocab", [1, 257, 5000])
@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_draws_have_the_distribution_of_float64(sampling: Sampling, vocab: int) -> None:
    logits = random_logits(vocab)
    sampler = Sampler(context_for(), vocab, sampling)
    check_draws([int(sampler.draw(logits)[0]) for _ in range(60)], logits[0], sampling)


def test_a_whole_vocabulary() -> None:
    """More slices than 2048 logits each allow: they become larger."""
    vocab, sampling = 530_011, Sampling(top_p=0.9, seed=11)
    logits = random_logits(vocab)
    sampler = Sampler(context_for(), vocab, sampling)
    check_draws([int(sampler.draw(logits)[0]) for _ in range(10)], logits[0], sampling)


@pytest.mark.parametrize("sampling", [Sampling(top_p=0.8), Sampling(top_k=7)], ids=str)
def test_rows_are_drawn_each_with_its_own_numbers(sampling: Sampling) -> None:
    logits = random_logits(2500, rows=3)
    sampler = Sampler(context_for(), 2500, sampling, rows=3)
    draws = np.array([sampler.draw(logits) for _ in range(30)])
    for row in range(3):
        check_draws(draws[:, row].tolist(), logits[row], sampling, row)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=40), Sampling(top_p=0.5)], ids=str)
def test_a_mask_is_never_violated(sampling: Sampling) -> None:
    """In 10,000 draws of all three, each row by a mask of its own."""
    vocab, rows, rng = 301, 84, np.random.default_rng(1)
    logits = np.repeat(random_logits(vocab), rows, axis=0)
    sampler = Sampler(context_for(), vocab, sampling, rows)
    for share in (0.01, 0.3) * 4:
        allowed = np.zeros((rows, -(-vocab // 32) * 32), bool)
        allowed[:, :vocab] = rng.random((rows, vocab)) < share
        allowed[np.arange(rows), rng.integers(vocab, size=rows)] = True
        sampler.allow(np.packbits(allowed, axis=1, bitorder="little").view(np.int32))
        for _ in range(5):
            assert allowed[np.arange(rows), sampler.draw(logits)].all()


def test_a_mask_leaves_the_shares_of_the_others() -> None:
    logits, sampling = random_logits(100), Sampling(top_p=0.9)
    allowed = np.arange(128) % 3 == 0
    sampler = Sampler(context_for(), 100, sampling)
    sampler.allow(np.packbits(allowed, bitorder="little").view(np.uint32))
    draws = [int(sampler.draw(logits)[0]) for _ in range(100)]
    check_draws(draws, np.where(allowed[:100], logits[0], -np.inf).astype("f4"), sampling)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=4), Sampling(top_p=0.5)], ids=str)
def test_no_id_to_draw(sampling: Sampling) -> None:
    sampler = Sampler(context_for(), 40, sampling)
    sampler.allow(np.zeros(2, np.uint32))
    with pytest.raises(DeviceError, match="no id can be drawn"):
        sampler.draw(random_logits(40))
    sampler.allow(None)
    with pytest.raises(DeviceError, match="no id can be drawn"):
        sampler.draw(np.full((1, 40), np.nan, np.float32))
    sampler.draw(random_logits(40))


def test_a_penalty_lowers_what_was_there_before() -> None:
    """As ``transformers``' RepetitionPenaltyLogitsProcessor, and an id that was drawn counts."""
    logits = np.array([[2.0, -1.0, 1.5, 0.5, -3.0]], np.float32)
    sampling = Sampling(top_k=1, repetition_penalty=2.0)
    sampler = Sampler(context_for(), 5, sampling)
    assert [int(sampler.draw(logits)[0]) for _ in range(4)] == [0, 2, 0, 0]
    sampler.restart(history=[0, 2, 3])
    assert int(sampler.draw(logits)[0]) == 0
    sampler.restart(history=[0], step=7)
    assert int(sampler.draw(logits)[0]) == 2
    negative = np.array([[-1.0, -1.5]], np.float32)
    sampler = Sampler(context_for(), 2, sampling)
    assert [int(sampler.draw(negative)[0]) for _ in range(2)] == [0, 1]


def test_infinite_logits() -> None:
    logits = random_logits(50)
    logits[0, 3], logits[0, 4:9], logits[0, 9] = np.inf, -np.inf, np.nan
    for sampling in (Sampling(), Sampling(top_k=5), Sampling(top_p=0.5)):
        assert {int(Sampler(context_for(), 50, sampling).draw(logits)[0])} == {3}


def test_the_same_seed_draws_the_same_ids() -> None:
    logits = random_logits(3000)

    def draws(seed: int) -> list[int]:
        sampler = Sampler(context_for(), 3000, Sampling(seed=seed))
        return [int(sampler.draw(logits)[0]) for _ in range(30)]

    assert draws(1) == draws(1) != draws(2)
    sampler = Sampler(context_for(), 3000, Sampling(seed=1))
    sampler.restart(step=10)
    assert [int(sampler.draw(logits)[0]) for _ in range(20)] == draws(1)[10:]


def draws_here() -> list[int]:
    logits = random_logits(3000)
    found = []
    for sampling in (Sampling(temperature=2.0), Sampling(top_p=0.9), Sampling(top_k=99, seed=3)):
        sampler = Sampler(context_for(), 3000, sampling)
        found += [int(sampler.draw(logits)[0]) for _ in range(100)]
    return found


def test_the_same_logits_and_seed_draw_the_same_ids_on_every_driver() -> None:
    """Weights are integers, so that no driver's exp2 or order of additions has a say."""
    said = run_on_swiftshader("tests.gpu.test_sampling", "wgpu")
    assert said.split() == list(map(str, draws_here()))


def test_a_repeated_draw_makes_nothing() -> None:
    context = context_for()
    sampler = Sampler(context, 3000, Sampling(top_p=0.9))
    logits = random_logits(3000)
    sampler.draw(logits)
    pipelines = context.pipelines

    def made() -> tuple[int, ...]:
        return context.buffers_created, pipelines.bind_groups_created, pipelines.pipelines_created

    before = made()
    for _ in range(5):
        sampler.draw(logits)
        sampler.allow(np.full(94, -1, np.int32))
        sampler.restart()
    assert made() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_k": 1025},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"seed": 1 << 64},
        {"temperature": 1e-40},
        {"repetition_penalty": 1e-40},
        {"repetition_penalty": 1e40},
    ],
)
def test_settings_outside_their_range(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must be "):
        Sampling(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"temperature": None}, {"top_p": "0.9"}, {"top_k": 1.5}, {"seed": 1.5}]
)
def test_settings_that_are_no_numbers(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(TypeError, match=f"^{name} must be a"):
        Sampling(**wrong)


def test_settings_of_numpy_are_those_of_python() -> None:
    given: dict[str, Any] = {"temperature": np.float32(0.5), "top_k": np.int64(3)}
    given["seed"] = np.int32(4)
    plain, logits = Sampling(0.5, 3, seed=4), random_logits(100)
    assert Sampling(**given) == plain
    draws = [Sampler(context_for(), 100, one).draw(logits) for one in (Sampling(**given), plain)]
    assert np.array_equal(draws[0], draws[1])


def test_arguments_of_another_shape() -> None:
    sampler = Sampler(context_for(), 40, Sampling())
    with pytest.raises(ValueError, match=r"mask must be int32 or uint32 \[2\] or \[1, 2\]"):
        sampler.allow(np.zeros(3, np.uint32))
    with pytest.raises(ValueError, match="mask must be"):
        sampler.allow(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"logits must be \[rows, V\] = \[1, 40\]"):
        sampler.draw(random_logits(41))
    with pytest.raises(IndexError, match=r"outside 0 … 39"):
        sampler.restart(history=[40])


if __name__ == "__main__":
    print(*draws_here())
