"""``wgpu-q4 pack``: a checkpoint becomes a packed file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file as save_tensors

from wgpu_q4 import Q4Weight, load_file, save_file
from wgpu_q4.cli import main

MATRIX = np.random.default_rng(0).standard_normal((37, 64)).astype(np.float32)
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    save_tensors({"model.embed_tokens.weight": MATRIX}, folder / "model.safetensors")
    return folder


def test_a_folder_of_floats(checkpoint: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "packed.safetensors"
    assert main(["pack", str(checkpoint), str(out), "--group-size", "16"]) == 0
    said = capsys.readouterr().out
    assert "37 × 64 in groups of 16, float16 scales; quantized from floats" in said
    assert f"{37 * 32 + 37 * 4 * 2:,} bytes, once for both uses; 4,736 in float16" in said
    weight = load_file(out)["weight"]
    error = np.abs(weight.dequantize() - MATRIX).reshape(37, 4, 16).max(axis=-1)
    largest = np.abs(MATRIX).reshape(37, 4, 16).max(axis=-1)
    assert (error <= largest / 15 + 1e-3 * largest).all()  # half a step, and the scale's rounding


def test_rule_scales_key_and_json(checkpoint: Path, tmp_path: Path, capsys: Captured) -> None:
    out, options = tmp_path / "packed.safetensors", ["--scales", "float32", "--rule", "mse"]
    assert main(["pack", str(checkpoint), str(out), *options, "--key", "tied", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (name,) = stored = load_file(out)
    assert name == told["key"] == "tied"
    assert told["scales"] == str(stored["tied"].scales.dtype) == "float32"
    assert told["sha256"] == stored["tied"].sha256
    assert told["quantized"] is True
    default = Q4Weight.quantize(MATRIX, 32, "float32").dequantize()
    assert np.square(stored["tied"].dequantize() - MATRIX).sum() < np.square(default - MATRIX).sum()


def test_what_is_4_bit_already_is_taken_over(tmp_path: Path, capsys: Captured) -> None:
    weight = Q4Weight.quantize(MATRIX, 8)
    save_file({"a": weight}, tmp_path / "own.safetensors")
    out = tmp_path / "packed.safetensors"
    assert main(["pack", str(tmp_path / "own.safetensors"), str(out)]) == 0
    assert "4-bit already, taken over as it was" in capsys.readouterr().out
    assert load_file(out)["weight"].same_matrix(weight)


def test_a_file_that_is_there_is_replaced_by_force_alone(
    checkpoint: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "packed.safetensors"
    out.write_bytes(b"precious")
    assert main(["pack", str(checkpoint), str(out)]) == 2
    assert "is there already: --force replaces it" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    assert main(["pack", str(checkpoint), str(out), "--force"]) == 0
    assert list(load_file(out)) == ["weight"]


def test_what_cannot_be_packed(checkpoint: Path, tmp_path: Path, capsys: Captured) -> None:
    out = str(tmp_path / "packed.safetensors")
    assert main(["pack", str(tmp_path / "nowhere"), out]) == 2
    assert main(["pack", str(checkpoint), out, "--group-size", "7"]) == 1
    assert "group_size" in capsys.readouterr().err
    assert not Path(out).exists()
