"""A decoder when something goes wrong: Control-C, a fork, numbers that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.decoder_oracle import PLAIN, logits_of, random_weights
from tests.devices import run_python
from tests.gpu.test_device_faults import interrupt_at
from wgpu_q4 import DeviceError
from wgpu_q4.decoder import Decoder, Draw, Greedy, Sampling

IDS = [5, 17, 3]


def test_interrupts_leave_nothing_behind(each_way: Any) -> None:
    """Control-C at any line of a prompt and of steps: lengths are true, and the next text is right.

    The buffer that was being read may still be mapped: wgpu ends the process if it is used again.
    """
    weights = random_weights(PLAIN)
    decoder = Decoder(weights, device=each_way, cache="float32", capacity=64)

    def call() -> list[int]:
        return list(decoder.generate(IDS, 5, end_of_text=(), steps=2))

    expected, step = call(), 1
    whole = [*IDS, *expected]
    while interrupt_at(step, call):
        if step % 2 and decoder.length:
            known = decoder.length
            more = list(decoder.generate([9], 2, keep=known, end_of_text=()))
            exact = logits_of(weights, [*whole[:known], 9, *more])
            assert more == exact[known:-1].argmax(-1).tolist(), f"interrupted at {step}"
        else:
            assert call() == expected, f"interrupted at {step}"
        step += 7  # every line is too many; each kind of line comes
    assert step > 200, "a text runs more lines than that"


def test_numbers_that_a_cache_in_half_precision_does_not_hold() -> None:
    weights = random_weights(PLAIN)
    layers = [
        replace(layer, attention_gain=layer.attention_gain * np.float32(1e6))
        for layer in map(weights.layer, range(PLAIN.layers))
    ]
    large = replace(weights, layer=layers.__getitem__)
    made = list(Decoder(large, cache="float32", capacity=64).generate(IDS, 8, end_of_text=()))
    exact = logits_of(large, [*IDS, *made])[len(IDS) - 1 : -1]
    assert made == exact.argmax(-1).tolist()
    for chooser in (Greedy(), Draw(Sampling())):
        decoder = Decoder(large, capacity=64, chooser=chooser)
        with pytest.raises(DeviceError, match=r"NaN.*cache='float32' holds them"):
            list(decoder.generate(IDS, 8, end_of_text=()))
        assert decoder.length == len(IDS)


IN_A_FORK = """
import os, warnings
warnings.simplefilter("ignore")
import numpy as np
from tests.decoder_oracle import PLAIN, random_weights
from wgpu_q4 import DeviceError
from wgpu_q4.decoder import Decoder, Draw, Sampling
draw = Draw(Sampling())
decoder = Decoder(random_weights(PLAIN), capacity=64, chooser=draw)
steps = decoder.generate([5, 17, 3], 8, end_of_text=())
next(steps)
uses = [lambda: next(steps), decoder.logits, lambda: decoder.prefill([1]),
        lambda: draw.allow(None), lambda: draw._sampler.draw(np.zeros((1, 101), np.float32))]
for use in uses:
    child = os.fork()
    if child == 0:
        try:
            use()
        except DeviceError as error:
            os._exit(7 if "spawn" in str(error) else 8)
        finally:
            os._exit(9)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_is_told_so_instead_of_hanging() -> None:
    assert run_python("-c", IN_A_FORK).split() == ["7"] * 5
