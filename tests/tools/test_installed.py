"""What a user has: the wheel in an environment with its three dependencies and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import wgpu_q4
from tests.packages import ROOT, run
from tests.tied_models import OnlyLogits, export, lower, quantized_shared
from wgpu_q4.executorch import share_tied_weights


def test_wheel_works_with_its_three_dependencies(bare_python: Path) -> None:
    script = """
import importlib.util
import numpy as np
import wgpu_q4

for absent in ("torch", "transformers", "gguf", "executorch", "tqdm", "tools"):
    assert importlib.util.find_spec(absent) is None, absent
matrix = np.random.default_rng(0).standard_normal((50, 64), np.float32)
weight = wgpu_q4.quantize(matrix, group_size=32)
ids = np.array([[0, 49, 7], [7, 1, 2]])
np.testing.assert_array_equal(wgpu_q4.embedding(ids, weight), weight.dequantize()[ids])
print(wgpu_q4.__file__)
"""
    home = bare_python.parent.parent
    imported_from = Path(run(bare_python, "-c", script, cwd=home).splitlines()[-1])
    assert imported_from.is_relative_to(home)


@pytest.fixture(scope="module")
def tied_pte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ``.pte``, which takes ExecuTorch to make, and nothing to read."""
    program = export(quantized_shared(OnlyLogits()))
    path = tmp_path_factory.mktemp("pte") / "tied.pte"
    path.write_bytes(lower(share_tied_weights(program)[0]))
    return path


@pytest.fixture(scope="module")
def tied_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file of `save_file`."""
    weight = wgpu_q4.quantize(np.ones((16, 32), np.float32))
    path = tmp_path_factory.mktemp("file") / "tied.safetensors"
    wgpu_q4.save_file({"embed_tokens": weight}, path)
    return path


def test_every_command_runs_from_the_wheel(
    bare_python: Path, tied_pte: Path, tied_file: Path, tmp_path: Path
) -> None:
    """Outside the checkout, with the three dependencies: no torch, no ExecuTorch, no tqdm."""
    command = bare_python.with_name("wgpu-q4")
    tiny = ("--shape", "16x32x32", "--ids", "2", "--rows", "1", "--seconds", "0.001")
    expected = {
        ("info",): "What wgpu_q4 uses here",
        ("inspect", tied_pte): "et_vk.linear_q4gsw.default [0] uint8 [512, 128]",
        ("kernel",): "linear_q4gsw_gemv_wide_rows_float16_scales",
        ("kernel", "linear_q4gsw_gemv_wide_rows_float16_scales"): "fn main(",
        ("bench", *tiny): "embedding, ids=2, 16×32, rows, float32",
        ("pack", tied_file, tmp_path / "packed.safetensors"): "exact grid, every value is kept",
        ("web", tied_file, "--out", tmp_path / "page"): "http://localhost:8000/",
        ("check", "--only", "pack"): "everything agrees with the float64 reference (6 checks)",
    }
    usage = run(command, "--help", cwd=tmp_path)
    listed = set(re.findall(r"^  ([a-z]+) ", usage, re.MULTILINE))
    assert listed == {"completion", *(name for name, *_ in expected)}  # the former needs shtab
    for arguments, shown in expected.items():
        assert shown in run(command, *arguments, cwd=tmp_path), arguments
    page = {path.name for path in (ROOT / "examples" / "web").iterdir()}
    assert "page.js" in page
    assert page < {path.name for path in (tmp_path / "page").iterdir()}
