"""``python -m tools.parity``: which backends run, the random cases, and the reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools.parity import report
from tools.parity.choice import REQUIRED, choose_backends
from tools.parity.command import main
from tools.parity.random_cases import random_cases
from tools.parity.result import Cell, Column, Result
from wgpu_q4.check.cases import Case


def test_random_cases_follow_from_the_seed() -> None:
    assert random_cases(20, 7) == random_cases(20, 7)
    assert random_cases(20, 7) != random_cases(20, 8)
    for case in random_cases(200, 7):
        assert case.embed_dim % 32 == 0
        assert case.embed_dim % case.group_size == 0
        if case.recorded_shape is not None:
            pairs = zip(case.ids_shape, case.recorded_shape, strict=True)
            assert all(present <= recorded for present, recorded in pairs)


def test_backends_are_chosen_by_name() -> None:
    names, left_out = choose_backends()
    assert set(REQUIRED) <= set(names)
    assert "wgpudawn/lavapipe" in left_out
    names, left_out = choose_backends(without=["wgpudawn", "vulkan/lavapipe"])
    assert "wgpudawn/swiftshader" in left_out
    assert "vulkan/lavapipe" not in names
    assert "vulkan/swiftshader" in names
    assert choose_backends(only=["vulkan/lavapipe", "numpy"])[0] == [
        "numpy",
        "vulkan/lavapipe",
    ]
    assert choose_backends(only=["vulkan/voodoo"])[0] == ["vulkan/voodoo"]
    names, _ = choose_backends(only=["glsl-dir"], glsl_dir=Path("."))
    assert names == ["glsl-dir/lavapipe", "glsl-dir/swiftshader"]
    with pytest.raises(ValueError, match="no backend is called 'voodoo'"):
        choose_backends(without=["voodoo"])
    for name in ("numpy/lavapipe", "executorch/lavapipe", "glsl-dir"):
        with pytest.raises(ValueError, match=name):
            choose_backends(only=[name])


def test_the_command_writes_its_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, data = tmp_path / "out" / "parity.html", tmp_path / "parity.json"
    arguments = ["--only", "numpy", "--small", "--random", "3"]
    assert main([*arguments, "--html", str(page), "--json", str(data)]) == 0
    printed = capsys.readouterr().out
    assert "passed: 116 cases × 1 backends" in printed
    assert "not run: vulkan/lavapipe: not among those of --only" in printed
    document = json.loads(data.read_text(encoding="utf-8"))
    assert document["passed"] is True
    assert len(document["cases"]) == len(document["backends"][0]["cells"]) == 116
    html = page.read_text(encoding="utf-8")
    for name in ("numpy", *(case["name"] for case in document["cases"])):
        assert name in html
    assert "wgpudawn/lavapipe" in html
    # Self-contained: nothing is loaded from elsewhere.
    assert not re.search(r"https?://|<script|<link|src=", html)


def test_the_page_shows_each_kind_of_cell_and_escapes() -> None:
    cases = [Case("corners", 8, 32, 32, (number,), note="a < b") for number in (1, 2, 3)]
    cells = [
        Cell("exact", values=32),
        Cell("excused", 3, 1, 32, excuses=["subnormals flushed"]),
        Cell("differs", 12, 5, 32, remark='at [0]: "1", not 2'),
    ]
    column = Column("vulkan/<x>", cells, "a & b", {"vulkan": "1"}, "broke")
    page = report.to_html(Result(cases, [column], {"numpy": "left out"}, {"python": "3"}))
    for shown in (
        '<p class="verdict failed">FAILED: 3 cases × 1 backends, 1 exact,',
        "<div>vulkan/&lt;x&gt;</div>",
        "<td>a &amp; b <strong>broke</strong></td>",
        "<td>1</td><td>1</td>\n<td>1</td>\n<td>0</td>",
        '<td class="exact" title="32 values, 0.000 s">0</td>',
        '<td class="excused" title="subnormals flushed; 32 values, 0.000 s">0*</td>',
        'title="5 of 32 values differ; at [0]: &#34;1&#34;, not 2">12</td>',
        '<tr><th scope=row title="a &lt; b">buffer_float [8,32] g32 [1]</th>',
        "<tr class=group><th colspan=2>Corners that they miss</th></tr>",
        "<dt>subnormals flushed</dt><dd>The driver turns",
        "<dt>numpy</dt><dd>left out</dd>",
        "<p>python 3;",
    ):
        assert shown in page, shown
    assert "<dt>texel" not in page


def test_the_command_says_what_is_wrong_with_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "voodoo"]) == 2
    assert "no backend is called 'voodoo'" in capsys.readouterr().err
    assert main(["--cases", "voodoo"]) == 2
    assert "no case has 'voodoo'" in capsys.readouterr().err
    assert main(["--only", "vulkan/voodoo", "--cases", "[7]"]) == 1
    assert "FAILED" in capsys.readouterr().out
