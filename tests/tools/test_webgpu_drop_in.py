"""The benchmark of the shaders for ExecuTorch's WebGPU backend times only what is right."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from benchmarks import webgpu_drop_in
from tools.codegen import WEBGPU_FOLDER
from tools.webgpu_backend import LINEAR_FILE

SMALL = ["--vocab", "64", "--embed-dim", "64", "--ids", "5", "--linear", "24x96", "--rounds", "1"]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder of other shaders, deep in a checkout."""
    shutil.copytree(WEBGPU_FOLDER, tmp_path / "backends" / "ops")
    return tmp_path


def test_every_folder_is_timed_on_every_job(
    other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert webgpu_drop_in.main([str(other), *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = [re.split(r"\s{2,}", line) for line in lines if "% of copy bandwidth" in line]
    assert [job[0] for job in jobs] == ["embedding 5", "linear 64 × 64", "linear 24 × 96"]
    for _, ours, theirs, times, _ in jobs:
        assert float(ours) > 0
        assert float(theirs) / float(ours) == pytest.approx(float(times[:-1]), rel=0.2)
    assert str(other) in lines[2]


def test_a_wrong_shader_is_not_timed(other: Path) -> None:
    (file,) = other.rglob(LINEAR_FILE)
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("- 72.0", "- 71.0"), encoding="utf-8")
    with pytest.raises(AssertionError, match="an output is wrong"):
        webgpu_drop_in.main([str(other), *SMALL, "--ids"])


def test_a_folder_without_the_shaders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        webgpu_drop_in.main([str(tmp_path), *SMALL])
