"""`tools.executorch_runtime` with runners that are right, wrong, broken and missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.devices import ROOT
from tests.tied_models import build_pattern_graphs_once
from tools.executorch_runtime.cases import CASES, LARGE, Case
from tools.executorch_runtime.command import main
from tools.executorch_runtime.export import Exported, export
from tools.executorch_runtime.runner import RunFailure, run
from tools.executorch_runtime.verdict import judge

FAKE = ROOT / "tests" / "tools" / "fake_executor_runner.py"


def script(folder: Path, text: str) -> Path:
    path = folder / "executor_runner"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    build_pattern_graphs_once()
    return script(tmp_path, f'exec "{sys.executable}" "{FAKE}" "$@"')


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    build_pattern_graphs_once()
    return export(Case(vocab=32, embed_dim=32), tmp_path_factory.mktemp("case"), "vulkan")


@pytest.mark.parametrize(
    "only",
    [
        "int32 ids [1, ≤64], weight-only",
        "516×256 G=32, int64 ids [1, 8], 8-bit activations",
        "weight-only, norm, bias",
    ],
)
def test_a_right_runner_passes(only: str, fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The graph of the file, run call by call, gives the eager program's numbers."""
    assert main(["--runner", str(fake), "--only", only]) == 0
    shown = capsys.readouterr().out
    assert "rows exact" in shown
    assert "1 programs, 0 wrong" in shown


def test_what_a_runtime_does_not_run_is_refused_and_not_wrong(
    fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = "ids [≤4, ≤16]"
    assert main(["--runner", str(fake), "--runtime", "webgpu", "--only", only]) == 0
    assert "refused  512×256" in capsys.readouterr().out


def test_a_broken_runner_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_pattern_graphs_once()
    broken = script(tmp_path, "echo starting; echo 'E 0:01 Loading failed' >&2; kill -ABRT $$")
    assert main(["--runner", str(broken), "--only", "12×64", "--keep", str(tmp_path / "kept")]) == 1
    shown = capsys.readouterr().out
    assert "WRONG    12×64" in shown
    assert "killed by SIGABRT: E 0:01 Loading failed" in shown
    assert (tmp_path / "kept" / "00" / "model.pte").exists()


@pytest.mark.parametrize("runner", [[], ["--runner", "/no/such/executor_runner"]])
def test_without_a_runner_it_says_what_is_missing(
    runner: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(runner) == 2
    said = capsys.readouterr().err
    assert "make executorch-runtime RUNNER=path/to/executor_runner" in said
    assert "EXECUTORCH_BUILD_VULKAN" in said


def test_no_case_is_no_success(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runner", str(fake), "--only", "no such case"]) == 2
    assert "no case has 'no such case'" in capsys.readouterr().err


def test_each_case_is_there_once() -> None:
    names = [str(case) for case in CASES + LARGE]
    assert len(set(names)) == len(names)


# The runner ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 3", "exit status 3: it said nothing"),
        ("echo hello; exit 1", "exit status 1: hello"),
        ("sleep 5", "longer than 0.2 s"),
        ("exit 0", r"did not write output-0\.bin, output-1\.bin"),
    ],
)
def test_how_a_run_failed(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match=message):
        run(script(tmp_path, text), tmp_path / "model.pte", [np.zeros(3, np.int64)], 2, 0.2)


def test_a_run_gets_its_inputs_and_gives_its_outputs(tmp_path: Path) -> None:
    copies = script(
        tmp_path,
        'for a in "$@"; do case $a in --inputs=*) i=${a#*=};; --output_file=*) o=${a#*=};; esac\n'
        'done; cp "$i" "$o-0.bin"',
    )
    ids = np.arange(5, dtype=np.int32)
    (output,) = run(copies, tmp_path / "model.pte", [ids], 1, 10)
    assert np.array_equal(np.frombuffer(output, np.int32), ids)


# The verdict --------------------------------------------------------------------------------------


def test_the_eager_results_are_right(exported: Exported) -> None:
    verdict = judge(exported, [exported.rows.tobytes(), exported.logits.tobytes()])
    assert (verdict.right, verdict.rows) == (True, "exact")
    assert "within a float32 sum" in verdict.logits


def test_one_bit_of_a_row_is_wrong(exported: Exported) -> None:
    rows = exported.rows.copy()
    rows.view(np.uint32)[0, 2, 5] ^= 1
    verdict = judge(exported, [rows.tobytes(), exported.logits.tobytes()])
    assert (verdict.right, verdict.rows) == (False, "6 of 7 equal")


def test_logits_are_held_to_their_bounds(exported: Exported) -> None:
    rows = exported.rows.tobytes()
    for error, right, words in ((1e-3, True, "rounding to float16"), (1e-2, False, "WRONG")):
        logits = exported.logits + np.float32(error) * exported.magnitude.astype(np.float32)
        verdict = judge(exported, [rows, logits.tobytes()])
        assert verdict.right == right
        assert words in verdict.logits
    missing = judge(exported, [rows, exported.logits[0, 0].tobytes()])
    assert not missing.right
    nan = judge(exported, [rows, np.full_like(exported.logits, np.nan).tobytes()])
    assert not nan.right
