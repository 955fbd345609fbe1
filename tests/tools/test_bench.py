"""``python -m benchmarks``: its figures, its pictures and its options.  No time is ever tested."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import get_args

import pytest

from benchmarks import plot, speed_table
from benchmarks.__main__ import main
from tools.bench import command, surroundings
from tools.bench.document import SCHEMA, Document
from tools.bench.peers import PEERS
from tools.bench.suite import LAYOUTS, Step
from wgpu_q4.bench import jobs
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import Effort, Timing
from wgpu_q4.kernels import Accuracy, MatrixShape

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
SMALL = MatrixShape(vocab=13, embed_dim=64, group_size=32, scales="float16")
QUICKLY = ("--seconds", "0.001", "--repeats", "2")
EFFORT = Effort(repeats=2, seconds=1e-3)
TINY = ("--shape", "72x64x32", "--ids", "3", "8", "--rows", "1", "20", *QUICKLY)

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, with two peers and two matrices to sweep over, drawn."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(command.SWEEP, "vocabs", (16, 40))
        patch.setitem(command.SWEEP, "embed_dims", (32, 96))
        arguments = [*TINY, "--sweep", "--peers", "torch", "torch-float32", "onnxruntime"]
        assert main([*arguments, "--json", str(folder / "run.json"), "--plot", str(folder)]) == 0
    return folder


def test_the_json_has_the_documented_form(measured: Path) -> None:
    found = json.loads((measured / "run.json").read_text(encoding="utf-8"))
    documented = sys.modules["tools.bench.document"].__doc__ or ""
    for name in (*found, *found["results"][0]):
        assert f"``{name}``" in documented, name
    assert found["schema"] == SCHEMA
    assert found["complete"] is True
    assert found["shape"] == {
        "vocab": 72,
        "embed_dim": 64,
        "group_size": 32,
        "scales": "float16",
    }
    assert found["drift"].keys() == {"copy", "read", "arithmetic"}
    for each in found["results"]:
        low, high = each["quartiles"]
        assert 0 < low <= each["seconds"] <= high
        limit = each["moved_bytes"] / found["ceilings"]["copy_bytes_per_second"]
        assert each["limit_seconds"] == pytest.approx(limit)
        assert each["share_of_limit"] == pytest.approx(limit / each["seconds"])


def test_everything_asked_for_is_measured(measured: Path) -> None:
    document = Document.read(measured / "run.json")
    done = {(r.who, r.op) for r in document.results}
    assert done >= {
        *(("wgpu_q4", op) for op in ("copy", "read", "arithmetic", "pack", "upload", "readback")),
        *(("wgpu_q4", op) for op in ("embedding", "linear", "embedding()", "linear()")),
        *(("torch", op) for op in ("embedding", "linear")),
        *(("ONNX Runtime", op) for op in ("embedding", "linear")),
    }
    names = [result.name for result in document.results]
    assert len(set(names)) == len(names), "a name tells a result from every other"
    assert any(result.detail.get("reduce") == "argmax" for result in document.results)
    shapes = {(r.shape.vocab, r.shape.embed_dim) for r in document.results if r.shape}
    assert shapes == {(72, 64), (16, 64), (40, 64), (72, 32), (72, 96)}
    assert document.left_out == []


def test_the_json_reads_back_as_it_was_written(measured: Path, tmp_path: Path) -> None:
    document = Document.read(measured / "run.json")
    document.write(tmp_path / "again" / "run.json")
    again = (tmp_path / "again" / "run.json").read_bytes()
    assert again == (measured / "run.json").read_bytes()
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["run.json"]


def test_the_command_is_the_one_to_repeat(measured: Path) -> None:
    said = Document.read(measured / "run.json").command
    assert said == (
        "python -m benchmarks --shape 72x64x32 --ids 3 8 --rows 1 20 "
        "--peers torch torch-float32 onnxruntime --sweep --repeats 2 --seconds 0.001"
    )


@pytest.mark.parametrize("installed", ["0.1.0", "0+unknown"])
def test_the_version_is_a_real_one(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpu_q4.__version__", installed)
    assert re.fullmatch(r"\d+\.\d+\.\d+( \([0-9a-f]{10}\+?\))?", surroundings.own_version())


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "another"}', f'{{"schema": "{SCHEMA}"}}']
)
def test_another_file_is_refused(content: str, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "other.json"
    file.write_text(content, encoding="utf-8")
    assert plot.main([str(file)]) == 1
    assert f"{file} holds no measurements" in capsys.readouterr().err


def test_an_interruption_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def interrupted(*_: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.Jobs, "linear", interrupted)
    assert main([*TINY, "--peers", "--json", str(tmp_path / "run.json")]) == 130
    assert "interrupted" in capsys.readouterr().err
    document = Document.read(tmp_path / "run.json")
    assert not document.complete
    assert document.drift is None
    assert any(result.op == "embedding" for result in document.results)


def test_a_job_that_would_take_too_long_is_left_out(capsys: Captured) -> None:
    calls: list[int] = []

    def step(size: int) -> Step:
        def run() -> Result:
            calls.append(size)
            return Result("wgpu_q4", "linear", size, Timing(1.0 * size, 1, 1, 1), "calls", SMALL)

        return Step(f"job {size}", run, "series", size)

    document = Document("", "", {}, {}, {}, SMALL, {}, {"copy_bytes_per_second": 1.0})
    command.measure([step(1), step(4), step(16)], document, longest=5)
    assert calls == [1, 4]
    assert document.left_out == [
        {"what": "job 16", "why": "one go would take about 16 s (--longest)"}
    ]
    assert "left out: job 16" in capsys.readouterr().out


# Pictures


def test_every_picture_is_drawn_small_and_the_same_again(measured: Path, tmp_path: Path) -> None:
    assert plot.main([str(measured / "run.json"), "--out", str(tmp_path)]) == 0
    first = {path.name: path.read_bytes() for path in measured.glob("*.svg")}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    kinds = ("peers", "rows", "ids", "bandwidth", "shapes")
    assert first.keys() == {f"run-{kind}.svg" for kind in kinds}
    for name, svg in first.items():
        assert len(svg) < 150_000, name
        text = svg.decode()
        assert "prefers-color-scheme: dark" in text
        assert "<dc:date>" not in text
    peers = first["run-peers.svg"].decode()
    for shown in ("wgpu_q4, rows", "ONNX Runtime, cpu, exact", "torch, cpu", "limit, bytes"):
        assert shown in peers, shown


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.name)
def test_committed_figures_are_whole_and_drawn(file: Path, tmp_path: Path) -> None:
    document = Document.read(file)
    assert document.complete
    assert document.drift is not None
    assert "unknown" not in document.versions["wgpu_q4"]
    assert plot.main([str(file), "--out", str(tmp_path)]) == 0
    for drawn in tmp_path.iterdir():
        committed = file.with_name(drawn.name)
        assert committed.is_file(), f"run python -m benchmarks.plot {file.relative_to(ROOT)}"
        assert drawn.read_bytes() == committed.read_bytes(), committed.name


def test_the_page_shows_the_committed_figures() -> None:
    text = speed_table.PAGE.read_text(encoding="utf-8")
    document, through_dawn = Document.read(speed_table.FIGURES), Document.read(speed_table.DAWN)
    made = speed_table.rewritten(text, document, through_dawn)
    assert made == text, "run python -m benchmarks.speed_table"
    assert speed_table.section(document, through_dawn).count("\n| ") >= 4


# Options


def test_options_that_make_no_sense(capsys: Captured) -> None:
    for arguments in (
        *(["--ids"], ["--rows", "1", "-1"], ["--repeats", "0"], ["--longest", "-1"]),
        *(["--peers", "nobody"], ["--layouts", "columns"], ["--no-such-option"]),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert "error: " in capsys.readouterr().err


def test_places_to_write_to_are_checked_first(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").touch()
    assert main(["--json", str(tmp_path)]) == 2
    assert main(["--plot", str(tmp_path / "file")]) == 2
    said = capsys.readouterr()
    assert "is a directory" in said.err
    assert "is a file" in said.err
    assert said.out == ""


def test_an_unknown_adapter(capsys: Captured) -> None:
    assert main(["--adapter", "Voodoo"]) == 2
    assert "no adapter is called 'Voodoo'" in capsys.readouterr().err


def test_the_quick_selection_leaves_the_slow_peers_out() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    quick = command._selection(parser.parse_args([]), SMALL)
    full = command._selection(parser.parse_args(["--full"]), SMALL)
    assert set(full.peers) - set(quick.peers) == set(command.SLOW_PEERS)
    assert set(full.peers) == set(PEERS) == set(command.PEER_NAMES)
    assert set(quick.rows) < set(full.rows)
    assert quick.accuracies == full.accuracies == get_args(Accuracy)
    assert quick.layouts == full.layouts == LAYOUTS
    assert set(quick.ids) < set(full.ids)
    assert not quick.vocabs
    assert full.vocabs
    assert full.embed_dims
