"""llama.cpp beside a model: how its own benchmark is called and read."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wgpu_q4 import DeviceError
from wgpu_q4.bench import model_peers, timing
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


class Clock:
    """A clock that only a stand-in moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_cyllama_is_measured_where_llama_bench_is_not(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the package: a millisecond an id of a prompt, ten a step."""
    clock, decoded = Clock(), list[tuple[int, int]]()

    def decode(batch: tuple[int, int]) -> None:
        decoded.append(batch)
        clock.now += 1e-3 * batch[0] if batch[0] > 1 else 1e-2

    def load(path: str, options: SimpleNamespace, verbose: bool) -> SimpleNamespace:
        if path != str(task.model):
            raise ValueError("no such model")
        return options

    package = SimpleNamespace(
        LlamaModelParams=SimpleNamespace,
        LlamaContextParams=SimpleNamespace,
        LlamaModel=load,
        LlamaContext=lambda model, sizes, verbose: SimpleNamespace(
            kv_cache_clear=decoded.clear, decode=decode, synchronize=lambda: None
        ),
        disable_logging=lambda: None,
        ggml_backend_load_all=lambda: None,
        ggml_backend_dev_info=lambda: [{"description": "a GPU"}],
        llama_batch_get_one=lambda ids, position: (len(ids), position),
    )
    monkeypatch.setattr(model_peers, "find_spec", lambda name: name == "cyllama" or None)
    monkeypatch.setattr(model_peers, "import_module", lambda name: package)
    monkeypatch.setattr(model_peers, "version", lambda name: "1.2")
    monkeypatch.setattr(timing, "time", clock)
    found = llama_cpp(task)
    assert decoded == [(1, position) for position in range(16)]
    assert [found.prefill, found.decode] == pytest.approx([1000, 100])
    assert re.fullmatch(r"llama\.cpp in cyllama 1\.2, threads: \d+, a GPU", found.name)
    with pytest.raises(DeviceError, match="cyllama failed: no such model"):
        llama_cpp(replace(task, model=Path("other.gguf")))


def test_says_what_to_install(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_peers, "find_spec", lambda name: None)
    with pytest.raises(NotMeasured, match=r"llama-bench on the PATH, or pip install cyllama"):
        llama_cpp(task)
    answers(tmp_path, [PREFILL, DECODE])
    with pytest.raises(NotMeasured, match="this is a folder"):
        llama_cpp(Task(tmp_path, 64, 16, 3))
