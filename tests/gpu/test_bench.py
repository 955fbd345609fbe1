"""How ``wgpu-q4 bench`` takes its times, and the command.  No time is ever tested."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.devices import default_device
from wgpu_q4.bench import jobs
from wgpu_q4.bench.timing import DeviceTimer, Effort, Timing
from wgpu_q4.cli import main
from wgpu_q4.device import Context, context_for
from wgpu_q4.kernels import MatrixShape

SMALL = MatrixShape(vocab=13, embed_dim=64, group_size=32, scales="float16")
EFFORT = Effort(repeats=2, seconds=1e-3)
TINY = ("--shape", "72x64x32", "--ids", "3", "--rows", "1", "20", "--seconds", "0.001")

Captured = pytest.CaptureFixture[str]


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


def test_the_command_measures_kernels_and_calls(capsys: Captured, context: Context) -> None:
    assert main(["bench", *TINY]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith(context.adapter_summary)
    jobs_there = [text[:66].rstrip() for text in lines if text.endswith(("timestamps", "calls"))]
    for job in (
        "embedding, ids=3, 72×64, rows, float32",
        "linear, M=1, 72×64, rows, exact, gemv_wide",
        "linear, M=1, 72×64, rows, int8, gemv_int8",
        "linear, M=20, 72×64, rows, exact, gemv_wide",
        "embedding(), ids=1, 72×64",
        "embedding(), ids=3, 72×64",
        "linear(), M=20, 72×64, exact",
        "linear(), M=1, 72×64, exact, argmax",
    ):
        assert job in jobs_there
    assert len(set(jobs_there)) == len(jobs_there)
    assert jobs_there[0].startswith("copy, ")
    assert re.search(r"time before: copy \d+\.\d+, read \d+\.\d+, arithmetic", lines[-1])


def test_json_has_each_figure_and_nothing_else_is_printed(capsys: Captured) -> None:
    assert main(["bench", *TINY, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["shape"] == {"V": 72, "K": 64, "G": 32}
    assert found["left_out"] == []
    assert found["drift"].keys() == {"copy", "read", "arithmetic"}
    for each in found["results"]:
        low, high = each["quartiles"]
        assert 0 < low <= each["seconds"] <= high
        limit = each["moved_bytes"] / found["copy_bytes_per_second"]
        assert each["share_of_limit"] == pytest.approx(limit / each["seconds"])
    assert {each["op"] for each in found["results"]} == {
        *("copy", "read", "arithmetic", "embedding", "linear", "embedding()", "linear()")
    }


def test_a_job_that_cannot_be_measured_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def refuse(*_: object) -> Any:
        raise ValueError("the result of 1 rows takes 288 bytes, more than one binding may have")

    monkeypatch.setattr(jobs.Jobs, "linear", refuse)
    assert main(["bench", *TINY, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["what"] for item in found["left_out"]][:1] == ["linear, M=1, exact"]
    assert all("more than one binding" in item["why"] for item in found["left_out"])
    assert "linear()" in {each["op"] for each in found["results"]}


def test_the_command_says_what_is_wrong(capsys: Captured) -> None:
    assert main(["bench", "--adapter", "Voodoo"]) == 2
    assert "no adapter is called 'Voodoo'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "--rows", "0"])
    assert exit_.value.code == 2
    assert "0 is less than 1" in capsys.readouterr().err
