"""``wgpu-q4 bench --model`` on a tiny model.  No time is ever tested."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command_help import keys_of_json
from tests.tiny_decoders import LLAMA, VOCAB
from wgpu_q4.bench import model_peers
from wgpu_q4.bench.model import generate
from wgpu_q4.cli import main
from wgpu_q4.decoder import Decoder

TINY = ("--prompt", "5", "--tokens", "3", "--repeats", "1")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    LLAMA.build().save_pretrained(path)
    return path


@pytest.fixture
def bench(folder: Path, capsys: Captured) -> Callable[..., tuple[int, str, str]]:
    def run(*options: str) -> tuple[int, str, str]:
        status = main(["bench", "--model", str(folder), *TINY, *options])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_model_is_measured_beside_torch(bench: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = bench("--without", "llama.cpp")
    assert status == 0
    assert re.search("^tiny0: llama, 3 layers, hidden 64, vocabulary 101; cache", out, re.M)
    assert re.search(r"^ +prefill of 5 +decode of 3   tokens a second$", out, re.M)
    assert re.search(r"^ +[\d,.]+ +[\d,.]+   wgpu_q4 ", out, re.M)
    torch = f"transformers {version('transformers')}, torch {version('torch')}, eager, float32"
    assert re.search(rf"^ +[\d,.]+ +[\d,.]+   {re.escape(torch)}, \d+ thread", out, re.M)
    assert "On the device, by timestamps: embedding" in out


def test_json_has_each_figure_and_what_was_left_out(
    bench: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_peers, "find_spec", lambda name: None)
    status, out, _ = bench("--json", "--body", "q4gsw")
    assert status == 0
    found: dict[str, Any] = json.loads(out)
    assert found.keys() == keys_of_json("bench", "and of a matrix")
    assert (found["prompt"], found["tokens"]) == (5, 3)
    assert min(found["tokens_per_second"].values()) > 0
    assert min(found["step"][name] for name in ("host", "embedding", "layers", "head")) > 0
    assert found["others"] == []
    assert [other["what"] for other in found["left_out"]] == ["llama.cpp", "torch"]
    assert "pip install 'wgpu_q4[hf]'" in found["left_out"][1]["why"]
    # 3 layers of 30,720 numbers in 4 bits, a scale for 32, two gains of 64; the last gain
    layers = 3 * (30_720 // 2 + 30_720 // 32 * 2 + 2 * 64 * 4) + 64 * 4
    assert found["bytes"]["layers"] == layers


def test_what_does_not_go_is_refused(
    bench: Callable[..., tuple[int, str, str]], folder: Path, capsys: Captured
) -> None:
    status, _, error = bench("--prompt", "5000")
    assert status == 2
    assert "a cache of 4096 positions" in error
    file = str(folder / "model.safetensors")
    assert main(["bench", "--model", file, "--body", "q4gsw"]) == 2
    assert "--body is for the model of a folder" in capsys.readouterr().err
    assert main(["bench", "--model", str(folder / "no such.gguf")]) == 2
    assert "no such.gguf" in capsys.readouterr().err


def test_the_ids_are_those_of_the_decoder() -> None:
    decoder = Decoder.from_hf(LLAMA.build(), capacity=32)
    prompt = np.arange(3, 10).tolist()
    expected = list(decoder.generate(prompt, 9, end_of_text=()))
    said: list[int] = []
    made = generate(decoder, prompt, 9, end_of_text=(), say=said.append)
    assert made.ids == said == expected
    assert (made.prompt, made.steps) == (7, 8)
    assert made.seconds == made.prefill + made.decode > made.decode > made.host > 0
    nothing = generate(decoder, prompt, 9, end_of_text=range(VOCAB))
    assert (nothing.ids, nothing.steps) == ([], 0)
