"""What a device refuses is a `DeviceError` that says what was asked, and later calls are right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cases import ODD, random_weight, random_x
from tests.devices import run_python
from wgpu_q4 import DeviceError, linear, request_device
from wgpu_q4.kernels.wgsl import source_folder

OUT_OF_MEMORY = """
import resource, warnings
import numpy as np, wgpu_q4
warnings.simplefilter("ignore")
weight = wgpu_q4.quantize(np.random.default_rng(0).standard_normal((2000, 2048)).astype("f4"))
rows = weight.dequantize()
some, many = np.arange(50), np.zeros(5000, int)
assert np.array_equal(wgpu_q4.embedding(some, weight), rows[some])
taken = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (taken + (200 << 20),) * 2)
try:
    wgpu_q4.embedding(many, weight)
except wgpu_q4.DeviceError as error:
    print(error)
assert np.array_equal(wgpu_q4.embedding(some, weight), rows[some])
"""


def test_out_of_device_memory() -> None:
    """Here an address space that is too small for one more buffer."""
    said = run_python("-c", OUT_OF_MEMORY)
    assert "embedding needs a buffer of" in said or "staging needs a buffer of" in said
    assert "llvmpipe" in said
    assert "Not enough memory left" in said
    assert "wgpu_q4 holds" in said


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("max-storage-buffers-per-shader-stage", 2, r"limit.* 2\b"),
        ("max-compute-invocations-per-workgroup", 32, r"\b32\b"),
    ],
)
def test_limits_below_those_of_webgpu(limit: str, value: int, says: str, here: Any) -> None:
    device = here.request_device_sync(required_limits={**here.limits, limit: value})
    weight, x = random_weight(ODD, "float16"), random_x(3, ODD.embed_dim)
    for _ in range(2):
        with pytest.raises(DeviceError, match=f"refuses a call: .*{says}"):
            linear(x, weight, device=device)


@pytest.fixture
def shaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shaders that a test may damage."""
    folder = tmp_path / "wgsl"
    shutil.copytree(source_folder(), folder)
    monkeypatch.setenv("WGPU_Q4_WGSL", str(folder))
    return folder


LOOK_UP = """
import sys, warnings
from pathlib import Path
import numpy as np, wgpu_q4
warnings.simplefilter("ignore")
weight = wgpu_q4.quantize(np.eye(8, dtype=np.float32), 8)
rows = weight.dequantize()
piece = Path(sys.argv[1])
text = piece.read_bytes()
damaged = {"gone": None, "empty": b"", "no text": b"\\xff\\xfe", "broken": text + b"\\nfn main( {"}
damaged = damaged[sys.argv[2]]
piece.unlink() if damaged is None else piece.write_bytes(damaged)
try:
    wgpu_q4.embedding([3], weight)
    print("nothing")
except wgpu_q4.DeviceError as error:
    print(error)
"""


@pytest.mark.parametrize("damage", ["gone", "empty", "no text", "broken"])
def test_a_damaged_shader(damage: str, shaders: Path) -> None:
    piece = shaders / "embedding" / "embedding_q4gsw.wgsl"
    said = run_python("-c", LOOK_UP, str(piece), damage, WGPU_Q4_WGSL=str(shaders))
    assert "embedding" in said
    assert "nothing" not in said


def test_a_shader_that_is_there_again(shaders: Path) -> None:
    """The same process goes on."""
    program = LOOK_UP + (
        "piece.write_bytes(text)\nassert np.array_equal(wgpu_q4.embedding([3], weight), rows[[3]])"
    )
    piece = shaders / "embedding" / "embedding_q4gsw.wgsl"
    said = run_python("-c", program, str(piece), "gone", WGPU_Q4_WGSL=str(shaders))
    assert "install wgpu_q4 again" in said


def test_an_empty_variable_is_as_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source_folder()
    monkeypatch.setenv("WGPU_Q4_WGSL", "")
    assert source_folder() == folder


def test_an_implementation_whose_name_no_module_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGPU_Q4_IMPLEMENTATION", ".x")
    with pytest.raises(DeviceError, match=r"'\.x' cannot be imported"):
        request_device()
