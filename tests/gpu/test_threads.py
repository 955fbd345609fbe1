"""Threads share a device; a forked process is told that it cannot."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.cases import anew, assert_same_bits, random_weight
from tests.devices import HANGS
from tests.recorder import BIG, Recorder, check_linear
from wgpu_q4 import embedding, reference
from wgpu_q4.device import context, default_context


def test_four_threads_on_one_device(own_device: Any) -> None:
    """From the first call on: they all find the weight not there yet."""
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(own_device)
    start = threading.Barrier(4)

    def work(thread: int) -> None:
        rng = np.random.default_rng(thread)
        start.wait()
        for turn in range(6):
            ids = rng.integers(0, 1000, 5 + 40 * thread + turn)
            result = embedding(ids, weight, device=own_device)
            assert_same_bits(result, reference.embedding(ids, weight))
            x = rng.standard_normal((1 + thread, 512)).astype(np.float32)
            check_linear(x, weight, own_device)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, thread) for thread in range(4)]:
            done.result()
    assert recorder.sizes().count(weight.packed.nbytes) == 1
    assert len(weight.residents) == 1


def test_threads_share_the_default_device(monkeypatch: pytest.MonkeyPatch, own_device: Any) -> None:
    asked = []

    def slowly(*arguments: Any) -> Any:
        asked.append(arguments)
        threading.Event().wait(0.05)
        return own_device

    monkeypatch.setattr(context, "_default", {})
    monkeypatch.setattr(context, "request_device", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: default_context(), range(4)))
    assert len(set(map(id, found))) == 1
    assert len(asked) == 1


FORKED = """
import os, warnings
import numpy as np
import wgpu_q4
warnings.simplefilter("ignore")
USE
child = os.fork()
if child == 0:
    try:
        import wgpu_q4.device
        weight = wgpu_q4.quantize(np.ones((3, 8), np.float32), 8)
        ASK
    except wgpu_q4.DeviceError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    finally:
        os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


BY_THIS_PACKAGE = """
weight = wgpu_q4.quantize(np.ones((3, 8), np.float32), 8)
device = wgpu_q4.request_device()
wgpu_q4.embedding(np.array([1]), weight, device=device)
wgpu_q4.embedding(np.array([1]), weight)
"""

BY_WGPU_ALONE = """
import wgpu
device = wgpu.gpu.request_adapter_sync().request_device_sync()
device.queue.submit([device.create_command_encoder().finish()])
"""


@pytest.mark.parametrize("use", [BY_THIS_PACKAGE, BY_WGPU_ALONE], ids=["wgpu_q4", "wgpu"])
@pytest.mark.parametrize(
    "ask",
    [
        "wgpu_q4.embedding(np.array([1]), weight)",
        "wgpu_q4.embedding(np.array([1]), weight, device='llvmpipe')",
        "wgpu_q4.request_device()",
        "wgpu_q4.device.list_adapters()",
        "wgpu_q4.device_info()",
        "wgpu_q4.embedding(np.array([1]), weight, device=device)",
    ],
)
def test_a_forked_process_is_told_so_instead_of_hanging(ask: str, use: str) -> None:
    program = FORKED.replace("ASK", ask).replace("USE", use)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS, check=True
    )
    assert done.stdout.split() == ["7"], done.stderr
