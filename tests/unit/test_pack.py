"""``wgpu-q4 pack``: a checkpoint becomes a packed file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from safetensors.numpy import save_file as save_tensors

from tests.weight_files import TOKENS, write_gguf
from wgpu_q4 import Q4Weight, load_file, save_file
from wgpu_q4.cli import main

MATRIX = np.random.default_rng(0).standard_normal((37, 64)).astype(np.float32)
Captured = pytest.CaptureFixture[str]


def measured(found: NDArray[Any], source: NDArray[Any]) -> tuple[float, float]:
    """The error in per cent of the source's rms, and the largest one."""
    exact = source.astype(np.float64)
    off = found.astype(np.float64) - exact
    return float(100 * np.sqrt((off**2).mean() / (exact**2).mean())), float(np.abs(off).max())


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
    assert "37 × 64 in groups of 16, float16 scales, from F32\n" in said
    assert "bytes  1,480, once for both uses; 9,472 in the checkpoint: 84.4 % saved\n" in said
    weight = load_file(out)["weight"]
    percent, greatest = measured(weight.dequantize(), MATRIX)
    lost = f"{percent:.3g} % of the rms, no value by more than {greatest:.3g}"
    assert said.endswith(f"\n  error  {lost}\n")
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
    percent, greatest = measured(stored["tied"].dequantize(), MATRIX)
    error = {"rms_percent": pytest.approx(percent), "largest": pytest.approx(greatest)}
    assert told["error"] == {**error, "exact": False}
    assert told["source"] == {"kind": "F32", "bytes": MATRIX.nbytes}
    assert told["saved_percent"] == pytest.approx(100 * (1 - told["bytes"] / MATRIX.nbytes))
    default = Q4Weight.quantize(MATRIX, 32, "float32").dequantize()
    assert np.square(stored["tied"].dequantize() - MATRIX).sum() < np.square(default - MATRIX).sum()


def test_what_is_4_bit_already_is_taken_over(tmp_path: Path, capsys: Captured) -> None:
    weight = Q4Weight.quantize(MATRIX, 8)
    save_file({"a": weight}, tmp_path / "own.safetensors")
    out = tmp_path / "packed.safetensors"
    assert main(["pack", str(tmp_path / "own.safetensors"), str(out)]) == 0
    assert "error  0: exact grid, every value is kept\n" in capsys.readouterr().out
    assert load_file(out)["weight"].same_matrix(weight)


def test_floats_of_a_4_bit_grid_lose_nothing(tmp_path: Path, capsys: Captured) -> None:
    grid = Q4Weight.quantize(MATRIX, 16, "float32").dequantize()
    save_tensors({"embed_tokens.weight": grid}, tmp_path / "model.safetensors")
    command = ["pack", str(tmp_path / "model.safetensors"), str(tmp_path / "out.safetensors")]
    assert main([*command, "--group-size", "16", "--scales", "float32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == {"rms_percent": 0.0, "largest": 0.0, "exact": True}


def test_types_of_gguf(tmp_path: Path, capsys: Captured) -> None:
    """The oracle is what gguf dequantizes: nothing is lost of Q4_0, something of Q8_0."""
    for kind, size in ((Kind.Q4_0, 18), (Kind.Q8_0, 34)):
        blocks = gguf.quantize(MATRIX, kind)
        write_gguf(tmp_path / "m.gguf", {TOKENS: (blocks, kind)})
        command = ["pack", str(tmp_path / "m.gguf"), str(tmp_path / "out"), "--force", "--json"]
        assert main(command) == 0
        told = json.loads(capsys.readouterr().out)
        packed = load_file(tmp_path / "out")["weight"].dequantize()
        percent, greatest = measured(packed, gguf.dequantize(blocks, kind))
        assert told["source"] == {"kind": kind.name, "bytes": 37 * 2 * size}
        assert told["error"]["rms_percent"] == pytest.approx(percent, abs=0)
        assert told["error"]["largest"] == pytest.approx(greatest, abs=0)
        assert told["error"]["exact"] is (kind is Kind.Q4_0) is (percent == 0)


def test_4_bits_that_do_not_fit_are_measured_too(tmp_path: Path, capsys: Captured) -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(0, 2**32, (37, 8), np.uint32)
    scales, biases = rng.random((2, 37, 2), np.float32)
    tensors = {"weight": words, "scales": scales, "biases": biases}
    named = {f"model.embed_tokens.{end}": array for end, array in tensors.items()}
    save_tensors(named, tmp_path / "model.safetensors")
    settings = {"tie_word_embeddings": True, "quantization": {"group_size": 32, "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    command = ["pack", str(tmp_path), str(tmp_path / "out"), "--json"]
    assert main(command) == 1
    assert main([*command, "--lossy"]) == 0
    told = json.loads(capsys.readouterr().out)
    u = words[:, :, None] >> 4 * np.arange(8, dtype=np.uint32) & 15
    values = u.reshape(37, 2, 32) * scales[..., None].astype(np.float64) + biases[..., None]
    percent, _ = measured(
        load_file(tmp_path / "out")["weight"].dequantize(), values.reshape(37, 64)
    )
    assert told["source"] == {"kind": "MLX", "bytes": sum(a.nbytes for a in tensors.values())}
    assert told["error"]["rms_percent"] == pytest.approx(percent, rel=1e-5)  # MLX's are float32


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
    assert main(["pack", str(checkpoint), out, "--name", "no_such"]) == 1
    assert "no matrix 'no_such'" in capsys.readouterr().err
    assert not Path(out).exists()
