"""``python -m benchmarks.resident`` on a small matrix: what it measures, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import resident


def test_every_figure_in_each_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resident.json"
    small = ["--vocab", "200", "--embed-dim", "64", "--ids", "30", "--steps", "5", "--repeats", "2"]
    monkeypatch.setattr(resident, "_WARM_SECONDS", 0.0)
    assert resident.main([*small, "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["sizes"] == {"vocab": 200, "embed_dim": 64, "ids": 30, "steps": 5, "repeats": 2}
    assert {"name", "driver", "implementation"} <= found["adapter"].keys()
    results = found["results"]
    assert [one["way"] for one in results] == ["native"] * 13 + ["public"] * 13
    assert [one["what"] for one in results[:13]] == [one["what"] for one in results[13:]]
    assert {one["unit"] for one in results} == {"call", "step", "dispatch"}
    for one in results:
        assert 0 < one["low"] <= one["median"] <= one["high"]
        assert one["samples"] == 2
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 + 26
