"""llama.cpp beside a model: how its own benchmark is called and read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from wgpu_q4 import DeviceError
from wgpu_q4.bench.model_peers import NotMeasured, Task, llama_cpp

ABOUT = {"build_commit": "c46583b", "build_number": 1, "backends": "CPU", "cpu_info": "a CPU"}
PREFILL = {**ABOUT, "gpu_info": "", "n_prompt": 64, "n_gen": 0, "avg_ts": 210.5}
DECODE = {**ABOUT, "gpu_info": "", "n_prompt": 0, "n_gen": 16, "avg_ts": 8.4}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Task(tmp_path / "model.gguf", 64, 16, 3)


def install(folder: Path, script: str) -> None:
    program = folder / "llama-bench"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def answers(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "rows.json").write_text(json.dumps(rows))
    install(folder, f'echo "$@" > "{folder}/called"; cat "{folder}/rows.json"')


def test_its_figures_are_read_in_any_order(task: Task, tmp_path: Path) -> None:
    answers(tmp_path, [DECODE, PREFILL])
    found = llama_cpp(task)
    assert (found.prefill, found.decode) == (210.5, 8.4)
    assert found.name == "llama.cpp 1 (c46583b), CPU, a CPU"
    called = (tmp_path / "called").read_text().split()
    assert called == f"-m {task.model} -o json -p 64 -n 16 -r 3".split()


def test_a_gpu_is_named(task: Task, tmp_path: Path) -> None:
    answers(tmp_path, [PREFILL, {**DECODE, "backends": "Vulkan", "gpu_info": "a GPU"}])
    assert llama_cpp(task).name == "llama.cpp 1 (c46583b), Vulkan, a GPU"


def test_its_failure_is_told(task: Task, tmp_path: Path) -> None:
    install(tmp_path, "echo loading >&2; echo error: no such model >&2; exit 3")
    with pytest.raises(DeviceError, match="failed with status 3: error: no such model"):
        llama_cpp(task)


def test_says_what_to_install(task: Task, tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="put its llama-bench on the PATH"):
        llama_cpp(task)
    answers(tmp_path, [PREFILL, DECODE])
    with pytest.raises(NotMeasured, match="this is a folder"):
        llama_cpp(Task(tmp_path, 64, 16, 3))
