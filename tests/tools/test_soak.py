"""The soak, shortly: all its stages pass, and each notices what it is there for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.devices import run_python
from tools.soak import stages, work
from tools.soak.report import BEGIN, END, as_table, write_into
from wgpu_q4 import ops

SHORTLY = ("-m", "tools.soak", "--seconds", "4", "--calls", "300", "--devices", "6")


def test_every_stage_passes(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    run_python(*SHORTLY, "--json", str(path))
    found = json.loads(path.read_text())
    threads, calls, devices = found["stages"]
    assert [stage["faults"] for stage in found["stages"]] == [[], [], []]
    assert calls["counts"] == dict.fromkeys(work.OPS, 300)
    assert devices["counts"] == {"devices": 6}
    assert set(threads["counts"]) >= {"weights", "devices", "devices destroyed in use"}


def nothing(_: int) -> None:
    """Report no progress."""


def damaged(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change one number in a hundred results of ``op``."""
    module: Any = ops if op == "linear_transposed" else __import__("wgpu_q4")
    right = getattr(module, op)
    calls = 0

    def wrong(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        found = right(*arguments, **options)
        if calls % 100:
            return found
        if op == "top_k":
            found.values[0, 0] += 1
        else:
            found = np.array(found)
            found.flat[0] += 1
        return found

    monkeypatch.setattr(module, op, wrong)


@pytest.mark.parametrize("op", work.OPS)
def test_one_wrong_number_in_a_hundred_results_is_a_fault(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged(op, monkeypatch)
    (fault,) = stages.calls(200, nothing).faults
    assert f"in {op}\n" in fault


def test_a_wrong_number_in_a_thread_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged("embedding", monkeypatch)
    assert any("wrong rows" in fault for fault in stages.threads(5, nothing).faults)


def test_what_leaks_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    embedding = ops.embedding

    def leak(*arguments: Any, **options: Any) -> Any:
        kept.append([np.ones(1 << 15)])
        return embedding(*arguments, **options)

    monkeypatch.setattr("wgpu_q4.embedding", leak)
    outcome = stages.calls(1100, nothing)
    assert any("memory grew" in fault for fault in outcome.faults)
    assert any("objects more" in fault for fault in outcome.faults)


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    table = as_table([stages.calls(20, nothing)], "an adapter")
    assert "| calls | 20 argmax, 20 embedding" in table
    write_into(path, table)
    assert path.read_text() == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        write_into(path, table)
