"""The inputs of the fuzzer, those that once crashed a reader among them, are read or refused."""

from __future__ import annotations

from pathlib import Path

from tools.fuzz.readers import CORPUS, READERS, read


def test_every_input_is_read_or_refused(tmp_path: Path) -> None:
    inputs = {path.name: path.read_bytes() for path in CORPUS.iterdir()}
    results = {name: read(data, str(tmp_path / "w")) for name, data in inputs.items()}
    assert {name for name, result in results.items() if result is not None} == {
        "gguf",
        "safetensors",
        "safetensors-verified",
    }
    assert {data[0] for data in inputs.values()} >= set(range(len(READERS)))
