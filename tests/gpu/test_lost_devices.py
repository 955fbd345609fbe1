"""A device that is lost: every thread gets a `DeviceError`, and the default device is replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cases import ODD, anew, random_weight
from tests.devices import drivers, run_python, swiftshader
from tests.recorder import Recorder
from tests.ways import IDS
from wgpu_q4 import DeviceError, embedding, reference
from wgpu_q4.device import context, default_context
from wgpu_q4.device.roundtrip import ENVIRONMENT_VARIABLE

THREADS = """
import threading, time, warnings
import numpy as np, wgpu_q4
warnings.simplefilter("ignore")
weight = wgpu_q4.quantize(np.random.default_rng(0).standard_normal((4000, 512)).astype("f4"))
ids = np.arange(2000)
expected = weight.dequantize()[ids]
seen = []

def work(device):
    try:
        while True:
            assert np.array_equal(wgpu_q4.embedding(ids, weight, device=device), expected)
    except wgpu_q4.DeviceError as error:
        seen.append("is lost: it was destroyed" in str(error))

for turn in range(TURNS):
    device = wgpu_q4.request_device()
    wgpu_q4.embedding(ids, weight, device=device)
    threads = [threading.Thread(target=work, args=(device,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.02 + 0.011 * turn)
    device.destroy()
    for thread in threads:
        thread.join()
print(seen == [True] * (3 * TURNS), flush=True)
import os
os._exit(0)  # wgpudawn may crash on its way out
"""


@pytest.mark.parametrize(
    ("turns", "variables"),
    [
        (8, {}),
        (8, {ENVIRONMENT_VARIABLE: "public"}),
        (3, {"WGPU_Q4_IMPLEMENTATION": "wgpudawn"}),
    ],
    ids=["native", "public", "dawn"],
)
def test_a_device_destroyed_while_threads_use_it(turns: int, variables: dict[str, str]) -> None:
    """The process lives, and so do its threads."""
    if "WGPU_Q4_IMPLEMENTATION" in variables:
        variables = variables | drivers(swiftshader().resolve())
    said = run_python("-c", THREADS.replace("TURNS", str(turns)), **variables)
    assert said.split() == ["True"]


@pytest.fixture
def replaceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default device that a test may lose."""
    monkeypatch.setattr(context, "_default", {})


def look_up() -> None:
    weight = random_weight(ODD, "float16")
    np.testing.assert_array_equal(embedding(IDS, weight), reference.embedding(IDS, weight))


@pytest.mark.usefixtures("replaceable")
def test_a_default_device_that_was_destroyed_is_replaced() -> None:
    look_up()
    lost = default_context()
    lost.device.destroy()
    look_up()
    assert default_context() is not lost
    assert default_context() is default_context()


@pytest.mark.usefixtures("replaceable")
def test_the_weight_is_uploaded_again_once() -> None:
    weight = anew(random_weight(ODD, "float16"))
    embedding(IDS, weight)
    default_context().device.destroy()
    recorder = Recorder(default_context().device)
    for _ in range(3):
        embedding(IDS, weight)
    assert recorder.sizes().count(weight.packed.nbytes) == 1


@pytest.mark.usefixtures("replaceable")
def test_a_default_device_that_its_driver_loses_is_replaced() -> None:
    """Nobody tells this package.  One call fails, and the next has another device."""
    look_up()
    device = default_context().device
    type(device).destroy(device)
    with pytest.raises(DeviceError, match="is lost"):
        look_up()
    look_up()


@pytest.mark.usefixtures("replaceable")
def test_a_named_device_that_was_destroyed_is_replaced(here: Any) -> None:
    weight, name = random_weight(ODD, "float16"), str(here.info["device"])
    embedding(IDS, weight, device=name)
    default_context(name).device.destroy()
    found = embedding(IDS, weight, device=name)
    np.testing.assert_array_equal(found, reference.embedding(IDS, weight))


@pytest.mark.usefixtures("replaceable")
def test_a_call_that_was_refused_does_not_replace_the_device() -> None:
    look_up()
    kept = default_context()
    with pytest.raises(DeviceError, match="refuses a call"), kept.lock, kept.guard, kept.guard.busy:
        kept.device.create_buffer(size=1 << 62, usage=kept.usage("STORAGE"))
    look_up()
    assert default_context() is kept
