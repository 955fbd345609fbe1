"""How much memory a large matrix takes on its way to a device, each way in a process of its own.

The kernel's count of a process is read from ``/proc``: its peak, and what of it is files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.devices import run_python

MIB = 1 << 20
VOCAB, EMBED_DIM = 32768, 2048
FLOATS = VOCAB * EMBED_DIM * 4
PACKED = FLOATS // 8 + FLOATS // 64  # with float16 scales, groups of 32
CHUNKS = 3 * 16 * MIB
"""Of an upload: one that is written, one on its way, one that waits to be let go."""

COMMON = f"""
import json, sys, warnings
import numpy as np
import wgpu_q4
warnings.simplefilter("ignore")
V, K = {VOCAB}, {EMBED_DIM}

def count(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise KeyError(name)

def warm():
    "All that a first call brings along."
    tiny = wgpu_q4.quantize(np.ones((64, K), np.float32))
    wgpu_q4.embedding(np.array([1]), tiny)
    wgpu_q4.linear(np.ones((1, K), np.float32), tiny)
    return count("VmRSS"), count("RssFile"), wgpu_q4.device.context_for()

def wait_for_each_submit(device):
    "A busy machine would otherwise keep the host's part of several chunks at a time."
    queue, submit = device.queue, device.queue.submit
    def submit_and_wait(commands):
        submit(commands)
        device._poll_wait()
    queue.submit = submit_and_wait

before, files, context = warm()
wait_for_each_submit(context.device)
def tell(**more):
    counted = {{"peak": count("VmHWM") - before, "files": count("RssFile") - files}}
    print(json.dumps(counted | more))
"""

QUANTIZE = """
rng = np.random.default_rng(0)
matrix = np.empty((V, K), np.float32)
for start in range(0, V, 1024):
    matrix[start : start + 1024] = rng.random((1024, K), np.float32) - 0.5
with_matrix = count("VmHWM")
weight = wgpu_q4.quantize(matrix)
quantized = count("VmHWM") - with_matrix
if len(sys.argv) > 1:
    wgpu_q4.save_file({"weight": weight}, sys.argv[1])
else:
    wgpu_q4.embedding(np.array([V - 1]), weight)
tell(quantized=quantized)
"""

LOAD = """
from wgpu_q4.device import upload
upload._CHUNK_BYTES = 4 << 20
start = count("RssAnon") + count("RssShmem")
weight = wgpu_q4.load_file(sys.argv[1])["weight"]
if len(sys.argv) > 2:
    weight = wgpu_q4.Q4Weight(weight.packed.copy(), weight.scales)
rows = wgpu_q4.embedding(np.array([V - 1]), weight)
anonymous = count("RssAnon") + count("RssShmem") - start
peak = count("VmHWM") - before
assert np.array_equal(rows[0], weight.dequantize()[-1])
(resident,) = weight.residents
tell(device=resident.nbytes, anonymous=anonymous, peak_of_load=peak)
"""


def tell(program: str, *arguments: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run_python("-c", COMMON + program, *arguments))
    return told


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("memory") / "weight.safetensors"
    tell(QUANTIZE, str(path))
    return path


def test_quantizing_and_uploading_take_little_more_than_the_floats() -> None:
    """At most 1.3 times the floats on a GPU; a driver on the processor holds the device's copy."""
    told = tell(QUANTIZE)
    assert told["quantized"] < 0.3 * FLOATS - PACKED
    assert told["peak"] < FLOATS + 2 * PACKED + CHUNKS
    assert told["peak"] > FLOATS + PACKED  # or it was not counted


def test_a_file_goes_to_the_device_without_a_copy_on_the_host(saved: Path) -> None:
    told, copied = tell(LOAD, str(saved)), tell(LOAD, str(saved), "copy")
    assert told["device"] == PACKED
    on_device = PACKED  # here in the process's own memory, as the driver runs on the processor
    chunks = 5 * 4 * MIB
    assert told["anonymous"] < on_device + chunks
    assert told["peak_of_load"] < told["files"] + on_device + chunks
    assert told["files"] >= PACKED  # read where it is mapped
    assert copied["anonymous"] > on_device + PACKED  # a copy would be seen
