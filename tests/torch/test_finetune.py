"""The fine-tuning example as a user starts it, the second process and the compiler included.

That is why it takes as long as all other tests of checkpoints together.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tied_finetune

ROOT = Path(__file__).resolve().parents[2]


def test_another_process_writes_the_text_that_was_learned(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/tied_finetune.py"), "--output", str(tmp_path)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, last = map(float, re.findall(r"(\d\.\d{4}) (?:at first|after 50 steps)", done.stdout))
    assert last < first / 5
    here, there = re.findall(r"^(?:here|new process) +'(.*)'$", done.stdout, re.MULTILINE)
    assert here == there == tied_finetune.AFTER
    assert (tmp_path / "model.safetensors").stat().st_size < 2048 * 128 * 4


def test_fails_if_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tied_finetune, "in_new_process", lambda folder: "another text")
    assert tied_finetune.main(["--steps", "4", "--within", "0"]) == 1
    assert re.findall("error: (.*)", capsys.readouterr().err) == [
        "the loss is not torch's",
        "the new process wrote another text",
    ]
