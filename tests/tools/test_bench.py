"""The measurements: what is counted, what is written, who is compared.  No time is ever tested."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import plot, readme
from benchmarks.__main__ import main
from tests.devices import default_device
from tools.bench import accounting, command, jobs, surroundings
from tools.bench.document import SCHEMA, Document
from tools.bench.peers import PEERS, UnavailableError, base, make, onnxruntime_peers
from tools.bench.result import Result
from tools.bench.suite import LAYOUTS, Step, measure_peer
from tools.bench.table import duration, line
from tools.bench.timing import DeviceTimer, Effort, Timing, time_calls
from wgpu_q4 import Q4Weight, reference
from wgpu_q4.device import context_for
from wgpu_q4.kernels import Accuracy, MatrixShape

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
QUICKLY = ("--seconds", "0.001", "--repeats", "2")
TINY = ("--shape", "72x64x32", "--ids", "3", "8", "--rows", "1", "20", *QUICKLY)
EFFORT = Effort(repeats=2, seconds=1e-3)

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


# What is counted


SMALL = MatrixShape(vocab=13, embed_dim=64, group_size=32, scales="float16")


def test_bytes_and_operations_of_a_small_matrix() -> None:
    assert accounting.packed_bytes(SMALL, "rows") == 13 * 32
    assert accounting.packed_bytes(SMALL, "blocks_buffer") == 16 * 32, "two strips of 8 rows"
    assert accounting.scales_bytes(SMALL) == 13 * 2 * 2
    # An id of 4 bytes, 32 of weight (from blocks those of 8 rows), two half scales, the row.
    assert accounting.embedding_bytes(SMALL, 5, "rows", "float32") == 5 * (4 + 32 + 4 + 256)
    assert accounting.embedding_bytes(SMALL, 5, "rows", "float16") == 5 * (4 + 32 + 4 + 128)
    assert accounting.embedding_bytes(SMALL, 5, "blocks_buffer", "float32") == 5 * (
        4 + 8 * 32 + 4 + 256
    )
    assert accounting.linear_bytes(SMALL, 3, "rows") == 416 + 52 + 4 * 3 * (64 + 13)
    assert accounting.linear_flops(SMALL, 3) == 2 * 3 * 13 * 64
    assert accounting.pack_bytes(SMALL, "blocks_buffer") == 416 + 512


def test_the_weight_takes_the_bytes_that_are_counted() -> None:
    weight = jobs.random_weight(SMALL)
    assert weight.packed.nbytes == accounting.packed_bytes(SMALL, "rows")
    assert weight.scales.nbytes == accounting.scales_bytes(SMALL)


def test_timing_is_median_and_quartiles() -> None:
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Timing(3.0, 2.0, 4.0, 5)
    assert Timing.of([2.0]) == Timing(2.0, 2.0, 2.0, 1)


def test_effort_bounds_samples_and_takes_one_at_least() -> None:
    effort = Effort(repeats=32, seconds=1.0)
    assert [effort.enough(one) for one in (0.0, 0.01, 0.1, 0.4, 9.0)] == [32, 32, 10, 3, 1]


def test_a_slow_call_is_not_repeated() -> None:
    calls: list[int] = []
    timing = time_calls(lambda: calls.append(0), Effort(repeats=32, seconds=1e-12))
    assert (timing.samples, len(calls)) == (1, 2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9.756e-6, "9.76 µs"), (46.08e-6, "46.1 µs"), (394e-6, "394 µs"), (2.02e-3, "2.02 ms")],
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# How it is timed


def work(timer: DeviceTimer) -> Timing:
    return jobs.Jobs(timer, jobs.random_weight(SMALL)).embedding(3, "rows", "float32").timing


def test_a_device_without_timestamps_is_timed_by_the_wall() -> None:
    timer = DeviceTimer(context_for(default_device("wgpu")), EFFORT)
    assert (timer.clock, timer.why) == ("dispatches", "the device has no timestamp-query")
    assert work(timer).median > 0


@pytest.mark.parametrize(
    ("ticks", "why"),
    [
        (lambda at: 65_536_000 * at, r"rounds timestamps to \d"),
        (lambda at: 7, "do not advance"),
        (lambda at: 1000 - at, "do not advance"),
    ],
    ids=["coarse", "still", "backwards"],
)
def test_timestamps_that_tell_nothing_are_not_used(
    ticks: Callable[[int], int], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def fake(*_: object, **__: object) -> NDArray[np.uint64]:
        nonlocal count
        count += 2
        return np.array([ticks(count), ticks(count + 1)], np.uint64)

    with monkeypatch.context() as patch:
        patch.setattr(DeviceTimer, "_ticks", fake)
        timer = DeviceTimer(context_for(), EFFORT)
    assert timer.clock == "dispatches"
    assert re.search(why, timer.why)
    assert work(timer).median > 0


# What is written


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


def test_a_line_shows_rates_and_the_share_of_the_limit() -> None:
    result = Result(
        "wgpu_q4", "linear", 1, Timing(2e-6, 1e-6, 3e-6, 9), "timestamps", SMALL, {}, 4000, 6000
    )
    shown = re.sub(" +", " ", line(result, copy_bandwidth=4e9))
    assert shown == "linear, M=1, 13×64 2.00 µs 1.00 µs to 3.00 µs 2.00 50% 3.00 timestamps"


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


def test_the_readme_shows_the_committed_figures() -> None:
    text = readme.README.read_text(encoding="utf-8")
    document, through_dawn = Document.read(readme.FIGURES), Document.read(readme.DAWN)
    assert readme.rewritten(text, document, through_dawn) == text, "run python -m benchmarks.readme"
    assert readme.section(document, through_dawn).count("\n| ") >= 4


# Peers


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_computes_what_the_reference_does(name: str) -> None:
    """Or is absent by name: WebGPU finds no GPU on the software drivers, floats no half units."""
    weight = jobs.random_weight(MatrixShape(101, 96, 32, "float16"))
    given: dict[str, Any] = {
        "embedding": np.array([100, 0, 3, 3, 57]),
        "linear": np.random.default_rng(1).standard_normal((3, 96)).astype(np.float32),
    }
    if name in ("torch-float16", "onnxruntime-webgpu"):
        with pytest.raises(UnavailableError, match=r"processor|finds no GPU here"):
            make(name, weight, EFFORT)
        return
    peer = make(name, weight, EFFORT)
    for op in PEERS[name][2]:
        task = getattr(peer, op)(given[op])
        found = task.answer()
        exact = (
            reference.embedding(given[op], weight)
            if op == "embedding"
            else reference.linear(given[op], weight)
        )
        assert found.shape == exact.shape
        assert np.abs(found - exact).max() <= task.tolerance * np.sqrt(np.mean(exact**2))
        result = measure_peer(peer, op, given[op], weight)
        assert (result.op, result.size) == (op, len(given[op]))
        assert result.timing.median > 0
    peer.close()


def test_what_computes_something_else_is_no_peer() -> None:
    weight = jobs.random_weight(SMALL)
    ids = np.arange(13)
    right = reference.embedding(ids, weight)

    def task(answer: NDArray[Any]) -> base.Task:
        return base.Task(lambda: answer, lambda: Timing.of([1.0]), "calls", 0, 1e-6)

    base.check(task(right), "embedding", ids, weight)
    nibble = right.copy()
    nibble[12, 5] += weight.scales[12, 0]
    for wrong, why in (
        (nibble, "its result is wrong"),
        (right * np.nan, "its result is wrong"),
        (right[1:], "its result has shape"),
    ):
        with pytest.raises(UnavailableError, match=why):
            base.check(task(wrong), "embedding", ids, weight)
    x = np.eye(3, 64, dtype=np.float32)
    logits = reference.linear(x, weight)
    base.check(task(logits), "linear", x, weight)
    with pytest.raises(UnavailableError, match="its result is wrong"):
        base.check(task(logits[:, ::-1]), "linear", x, weight)


def test_an_absent_peer_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "tools.bench.peers.torch_peers", None)
    arguments = ["--shape", "16x32x32", "--ids", "2", "--rows", "1", *QUICKLY]
    assert main([*arguments, "--peers", "torch", "torch-float32"]) == 0
    said = capsys.readouterr().out
    assert "left out: torch embedding: not installed" in said
    assert "left out: torch-float32 linear: not installed" in said


def test_a_peer_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def refuse(*_: object) -> Any:
        raise UnavailableError("no such operator")

    monkeypatch.setattr(onnxruntime_peers.Processor, "session", refuse)
    arguments = ["--shape", "16x32x32", "--ids", "2", "4", "--rows", "1", *QUICKLY]
    assert main([*arguments, "--peers", "onnxruntime"]) == 0
    said = capsys.readouterr().out
    assert said.count("left out: onnxruntime embedding: no such operator") == 1


def test_a_peer_that_raises_ends_no_run() -> None:
    class Broken(base.Peer):
        who = "broken"

        def embedding(self, ids: NDArray[np.int64]) -> base.Task:
            raise RuntimeError("out of memory\n(and a long trace)")

    weight = jobs.random_weight(SMALL)
    with pytest.raises(UnavailableError, match=r"^it fails at embedding, 1: out of memory$"):
        measure_peer(Broken(), "embedding", np.array([0]), weight)
    with pytest.raises(UnavailableError, match="broken has no product here"):
        measure_peer(Broken(), "linear", np.ones((1, 64), np.float32), weight)


def test_groups_that_onnx_runtime_lacks() -> None:
    weight = Q4Weight(np.zeros((3, 12), np.uint8), np.ones((3, 1), np.float32))
    peer = make("onnxruntime", weight, EFFORT)
    with pytest.raises(UnavailableError, match="groups of 16, 32, 64"):
        peer.embedding(np.array([0]))
    with pytest.raises(UnavailableError, match="groups of 16, 32, 64"):
        peer.linear(np.ones((1, 24), np.float32))


# Options


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--ids", "0"), ("--ids", "-3"), ("--ids", "many"), ("--ids",)),
        *(("--rows", "0"), ("--rows", "1", "-1"), ("--repeats", "0"), ("--seconds", "0")),
        *(("--seconds", "nan"), ("--longest", "-1"), ("--peers", "nobody")),
        *(("--layouts", "columns"), ("--shape", "llama"), ("--shape", "0x32x32")),
        *(("--shape", "16x32x24"), ("--shape", "16x36x12"), ("--no-such-option",)),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense(arguments: tuple[str, ...], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
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
    assert main(["--adapter", "Voodoo"]) == 1
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
