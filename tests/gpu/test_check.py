"""``wgpu-q4 check``: right drivers pass, wrong kernels and crashes do not.

The checks run in a process of their own.  A changed copy of the kernels brings faults into it, or
``sitecustomize``, which Python imports first.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.devices import drivers, swiftshader
from wgpu_q4.check.checks import all_checks, examine
from wgpu_q4.check.finding import Check, Finding, Outcome
from wgpu_q4.check.process import ProcessError, answers
from wgpu_q4.check.products import compare, wrong_ids
from wgpu_q4.check.report import Report
from wgpu_q4.check.runner import run
from wgpu_q4.cli import main
from wgpu_q4.device import default_context
from wgpu_q4.errors import DeviceError
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import LINEAR_KERNELS, Accuracy, Layout, source_folder

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def report() -> Report:
    """What the default adapter computes."""
    return run()


def test_everything_agrees(report: Report) -> None:
    assert [finding for finding in report.findings if finding.is_bad] == []
    assert [(f.op, f.title) for f in report.findings] == [(c.op, c.title) for c in all_checks()]
    assert len({finding.title for finding in report.findings}) == len(report.findings)
    # Only the kernel on matrix units is one that a device may lack.
    missing = {finding.detail for finding in report.findings if finding.status == "not here"}
    assert all(reason.startswith("gemm_matrix needs a device") for reason in missing)
    assert 0 < max(finding.share or 0 for finding in report.findings) < 1
    assert report.adapter == default_context().adapter_summary


def test_every_way_to_hold_a_weight_is_checked() -> None:
    titles = [check.title for check in all_checks()]
    for layout in get_args(Layout):
        for storage in ("buffer", "texture3d"):
            for half in ("half", "float"):
                for scales in ("float_scales", ""):
                    assert any(
                        title.startswith(f"embedding, {layout}: ")
                        and f"{storage}_{half} " in title
                        and ("float_scales" in title) == bool(scales)
                        for title in titles
                    ), (layout, storage, half, scales)
    assert {check.op for check in all_checks()} == {
        *("embedding", "pack", "linear", "linear_transposed", "argmax", "top_k")
    }
    products = [re.match(r"linear, (\w+), \w+, (\w+) scales", title) for title in titles]
    named = {(found[1], found[2]) for found in products if found}
    accuracies = {(accuracy, "float16") for accuracy in get_args(Accuracy)}
    assert named == accuracies | set(product(LINEAR_KERNELS, get_args(ScalesDtype)))


def test_the_text_counts_and_ends_with_the_verdict(report: Report) -> None:
    text = str(report).splitlines()
    assert text[0] == f"{report.adapter}, {report.implementation}"
    counts = Counter(finding.op for finding in report.findings)
    assert f"{'embedding':17} {counts['embedding']} agree" in text
    run_here = sum(finding.status != "not here" for finding in report.findings)
    assert text[-1] == f"everything agrees with the float64 reference ({run_here} checks)"


def test_swiftshader_has_known_differences_only(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for name, value in drivers(swiftshader().resolve()).items():
        monkeypatch.setenv(name, value)
    assert main(["check", "--only", "g32 [2,3,5] "]) == 0
    said = capsys.readouterr().out
    assert said.startswith("SwiftShader")
    assert "3 agree but for a known difference" in said
    assert "known difference: subnormals flushed: The driver turns" in said
    assert "known difference: texel with an infinity: SwiftShader stores" in said
    assert "everything agrees with the float64 reference, but for known differences (" in said


def test_a_wrong_kernel_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Groups are given the scale of their neighbours: wrong where a row has several groups."""
    changed = tmp_path / "wgsl"
    shutil.copytree(source_folder(), changed)
    piece = changed / "scales" / "f32.wgsl"
    source = piece.read_text(encoding="utf-8")
    assert source.count(" + group]") == 1
    piece.write_text(source.replace(" + group]", " + (group ^ 1u)]"), encoding="utf-8")
    monkeypatch.setenv("WGPU_Q4_WGSL", str(changed))
    assert main(["check", "--json", "--only", "float32 scales, [131,2048] g128, 3 rows"]) == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["agrees"] is False
    wrong = [finding for finding in found["findings"] if finding["status"] == "differs"]
    lacking = [finding for finding in found["findings"] if finding["status"] == "not here"]
    assert len(wrong) + len(lacking) == len(found["findings"])
    assert len(wrong) >= 10
    assert all("values are beyond the bound; the worst, at [" in item["detail"] for item in wrong)
    assert all(finding["share"] > 1 for finding in wrong)


def test_the_text_shows_what_is_wrong_and_what_to_report() -> None:
    agree = Finding("embedding", "embedding, rows: one", "agrees")
    wrong = Finding("linear", "linear, gemv", "differs", "2 of 3 values are beyond the bound")
    text = str(Report("adapter", "wgpu 1", [agree, *[wrong] * 21]))
    assert f"{'linear':17} 21 DIFFER\n" in text
    assert text.count("DIFFERS  linear, gemv\n  2 of 3 values are beyond the bound\n") == 20
    assert "and 1 more, which --json lists" in text
    assert "something is wrong: 21 of 22 checks" in text
    assert text.endswith("  wgpu-q4 check --json\n  wgpu-q4 info --all")


def test_a_crash_costs_one_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker that a check ends goes on with the next check in a new process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from wgpu_q4.check.cases import Case\n"
        "matrix = Case.matrix\n"
        "Case.matrix = lambda case: os._exit(7) if case.vocab == 21 else matrix(case)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = run("pack")
    assert [finding.status for finding in report.findings].count("failed") == 2
    for finding in report.findings:
        assert finding.is_bad == ("[21,96]" in finding.title)
        assert not finding.is_bad or "its process ended with status 7" in finding.detail


def test_a_driver_that_only_crashes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(*_: object, **__: object) -> Iterator[dict[str, str]]:
        yield {"adapter": "A", "implementation": "wgpu 1"}
        raise ProcessError("its process ended with status -11")

    monkeypatch.setattr("wgpu_q4.check.runner.answers", crashes)
    report = run("pack")
    assert [finding.status for finding in report.findings] == ["failed"] * 6
    assert report.findings[0].detail == "its process ended with status -11"
    assert report.findings[-1].detail == "not run: the driver has crashed 5 times"


def test_a_driver_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(*_: object, **__: object) -> Iterator[dict[str, str]]:
        raise ProcessError("its process ended with status -11")
        yield

    monkeypatch.setattr("wgpu_q4.check.runner.answers", crashes)
    with pytest.raises(DeviceError, match="the driver does not start: its process ended with"):
        run("pack")


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProcessError, match="its process took too long"):
        list(answers("hanging", {}, seconds=1))


def test_each_answer_gives_a_process_its_time_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import time\nfor _ in range(5):\n    time.sleep(0.5)\n    print('{}', flush=True)\n"
    (tmp_path / "slow.py").write_text(script, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(answers("slow", {}, seconds=2)) == [{}] * 5


def test_the_command_says_what_is_missing(capsys: Captured) -> None:
    assert main(["check", "--adapter", "Voodoo", "--only", "pack"]) == 2
    assert "no adapter is called 'Voodoo'" in capsys.readouterr().err
    assert main(["check", "--only", "no such check"]) == 2
    assert "no check has 'no such check' in its title" in capsys.readouterr().err


def test_an_error_is_a_finding() -> None:
    def lost(context: object) -> Outcome:
        raise RuntimeError("device lost")

    finding = examine(Check("linear", "broken", lost), default_context())
    assert finding == Finding("linear", "broken", "failed", "RuntimeError: device lost")


def test_a_nan_on_one_side_is_no_agreement() -> None:
    exact, bound = np.array([[1.0, np.nan]]), np.array([[0.5, np.nan]])
    assert compare(np.array([[1.25, np.nan]], np.float32), exact, bound).share == 0.5
    for wrong in ([[np.nan, np.nan]], [[1.0, 1.0]], [[2.0, np.nan]], [[np.inf, np.nan]]):
        assert "1 of 2 values" in compare(np.array(wrong, np.float32), exact, bound).wrong


def test_wrong_ids_are_told() -> None:
    exact, bound = np.array([[1.0, 3.0, 2.0, 3.0]]), np.full((1, 4), 0.1)
    assert wrong_ids(np.array([[3, 1]]), exact, bound) == ""
    for ids, why in (
        ([[1, 2]], "leaves out a logit of at least 2.9 for one of 2.1"),
        ([[1, 1]], "an id twice"),
        ([[1, 4]], "outside the vocabulary"),
    ):
        assert why in wrong_ids(np.array(ids), exact, bound)
    assert "lowest ids" in wrong_ids(np.array([[1, 0]]), 0 * exact, bound, ties=True)
    assert "must come first" in wrong_ids(np.array([[1]]), exact, bound, nan=True)
