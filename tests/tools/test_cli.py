"""``wgpu-q4``: its exit status and its messages, and ``wgpu-q4 info``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import wgpu_q4
from tests.command_help import helps, keys_of_json
from tests.devices import drivers, run_python
from tests.products import INTEGER_BITS
from wgpu_q4.cli import main
from wgpu_q4.device import adapter_summary, list_adapters
from wgpu_q4.device.adapter import choose_adapter
from wgpu_q4.device.context import default_context
from wgpu_q4.kernels import (
    DEFAULT_LAYOUT,
    TABLE,
    Accuracy,
    MatrixShape,
    plan_linear,
    portable_shaders,
)


@pytest.fixture(autouse=True)
def no_choice_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests choose for themselves."""
    monkeypatch.delenv("WGPU_Q4_ADAPTER", raising=False)
    monkeypatch.delenv("WGPU_Q4_IMPLEMENTATION", raising=False)


Captured = pytest.CaptureFixture[str]


def info(capsys: Captured, *options: str) -> str:
    """What ``wgpu-q4 info`` prints when nothing goes wrong."""
    assert main(["info", *options]) == 0
    captured = capsys.readouterr()
    return captured.out


def section(text: str, title: str) -> list[str]:
    """The indented lines under a title."""
    match = re.search(rf"^{title}.*\n((?: .*\n)+)", text, re.MULTILINE)
    assert match is not None, f"no section {title!r} in\n{text}"
    return match[1].splitlines()


def test_info_lists_implementations_and_their_adapters(capsys: Captured) -> None:
    lines = section(info(capsys), "WebGPU implementations")
    version = vars(sys.modules["wgpu"])["__version__"]
    assert lines[0] == f"  wgpu {version}  <- used"
    assert any(re.match(r"  wgpudawn \d", line) for line in lines)
    used = adapter_summary(choose_adapter(announce=False))
    for adapter in list_adapters("wgpu"):
        summary = adapter_summary(adapter)
        assert f"    {summary}{'  <- used' if summary == used else ''}" in lines
    assert sum(line.endswith("<- used") for line in lines) == 2


def test_info_shows_the_limits_that_matter(capsys: Captured) -> None:
    text = info(capsys)
    adapter = choose_adapter(announce=False)
    lines = section(text, f"Limits of {re.escape(adapter_summary(adapter))}")
    shown = {name: int(number.replace(",", "")) for name, number in map(str.split, lines)}
    assert shown == {name: adapter.limits[name] for name in shown}
    assert shown.keys() >= {
        "max-storage-buffer-binding-size",
        "max-compute-workgroup-storage-size",
        "max-compute-invocations-per-workgroup",
        "max-compute-workgroups-per-dimension",
        "max-texture-dimension-2d",
    }


def test_info_shows_what_will_be_used(capsys: Captured) -> None:
    chosen = "\n".join(section(info(capsys), "What wgpu_q4 uses here"))
    adapter = choose_adapter(announce=False)
    assert re.search(rf"weight layout +{DEFAULT_LAYOUT}: one copy for embedding and linear", chosen)
    binding, buffer = "max-storage-buffer-binding-size", "max-buffer-size"
    largest = min(adapter.limits[binding], adapter.limits[buffer])
    assert f"parts           1; a part has at most {largest:,} packed bytes" in chosen
    names = {variant.name for variant in portable_shaders()}
    embedding = re.search(r"^ +embedding +(\w+)", chosen, re.MULTILINE)
    assert embedding is not None
    assert embedding[1] in names
    assert "half precision" in chosen
    assert re.search(r"^ +shader checks +off where proven needless$", chosen, re.MULTILINE)
    assert re.search(r"^ +matrix units +none that this WebGPU implementation offers$", chosen, re.M)
    assert re.search(r"^ +host +native calls$", chosen, re.MULTILINE)
    assert re.search(r"^ +small results +written where the host reads$", chosen, re.MULTILINE)


def choices(chosen: str, accuracy: Accuracy) -> list[tuple[int, int | None, str, str]]:
    """First and last row of x, kernel and reason of each line under an accuracy."""
    match = re.search(rf"^  linear, {accuracy} \([^)]+\)\n((?:    .*\n?)+)", chosen, re.MULTILINE)
    assert match is not None, f"no choices for {accuracy!r} in\n{chosen}"
    pattern = r"    (?:(\d+) to (\d+) rows|from (\d+) rows) +(\w+) +(.+)"
    found = []
    for line in match[1].splitlines():
        parts = re.fullmatch(pattern, line)
        assert parts is not None, line
        first, last, open_first, kernel, because = parts.groups()
        found.append((int(first or open_first), int(last) if last else None, kernel, because))
    return found


@pytest.mark.parametrize("accuracy", get_args(Accuracy))
def test_info_shows_the_choices_of_an_accuracy(capsys: Captured, accuracy: Accuracy) -> None:
    """Rows of x without a gap, the kernel that a plan for them has, and what was measured."""
    lines = choices("\n".join(section(info(capsys), "What wgpu_q4 uses here")), accuracy)
    firsts, lasts = [line[0] for line in lines], [line[1] for line in lines]
    assert firsts == [1, *(last + 1 for last in lasts[:-1] if last is not None)]
    assert lasts[-1] is None
    assert len(lines) >= 2
    context, shape = default_context(), MatrixShape(128256, 2048, 32, "float16")
    for first, last, kernel, because in lines:
        for rows in (first, last or 10 * first):
            plan = plan_linear(
                shape,
                rows,
                DEFAULT_LAYOUT,
                False,
                context.limits,
                context.half_support,
                accuracy=accuracy,
                software=context.is_software,
            )
            name = f"linear_q4gsw_{kernel}_{DEFAULT_LAYOUT}_float16_scales"
            assert plan.product.shader.name.startswith(name)
        assert (kernel, because) in [(choice.kernel.name, choice.because) for choice in TABLE]
    rounding = {INTEGER_BITS[line[2]] for line in lines if line[2] in INTEGER_BITS}
    assert rounding <= {"exact": set(), "fast": {16}, "int8": {8}}[accuracy]
    assert rounding or accuracy != "int8"


def test_info_says_why_the_host_takes_the_slower_way(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgpu_q4.device.context._default", {})  # a device that is not in use yet
    monkeypatch.setenv("WGPU_Q4_ROUND_TRIP", "public")
    chosen = "\n".join(section(info(capsys), "What wgpu_q4 uses here"))
    assert re.search(r"^ +host +public calls: it was asked for$", chosen, re.MULTILINE)


def test_all_lists_every_limit_and_feature(capsys: Captured) -> None:
    short, long = info(capsys), info(capsys, "--all")
    adapter = choose_adapter(announce=False)
    shown = [line.split()[0] for line in section(long, "Limits of")]
    assert shown == sorted(adapter.limits)
    assert len(section(short, "Limits of")) < len(shown)
    (features,) = section(long, "Features")
    assert features.strip().split(", ") == sorted(adapter.features)
    assert "--all" in short
    assert "--all" not in long


def test_json_holds_what_the_text_says(capsys: Captured) -> None:
    text, found = info(capsys, "--all"), json.loads(info(capsys, "--json"))
    assert f"Limits of {found['adapter']}\n" in text
    assert found["wgpu_q4"] == wgpu_q4.__version__
    for name, limit in found["limits"].items():
        assert re.search(rf"^  {name} +{limit:,}$", text, re.MULTILINE)
    assert f"\n  {', '.join(found['features'])}\n" in text
    for choices in found["used"]["linear"].values():
        assert choices[0]["first_rows"] == 1
        for choice in choices:
            assert f"{choice['kernel']:20} {choice['because']}\n" in text
    (used,) = [item for item in found["implementations"] if item.get("used")]
    assert f"  {used['name']} {used['version']}  <- used" in text


def test_an_adapter_by_name(capsys: Captured) -> None:
    worst = list_adapters("wgpu")[-1]
    text = info(capsys, "--adapter", adapter_summary(worst).upper())
    assert f"    {adapter_summary(worst)}  <- used" in text
    assert f"Limits of {adapter_summary(worst)}" in text


def refused(capsys: Captured, *options: str) -> str:
    """What ``info`` prints to standard error when it cannot go on."""
    assert main(["info", *options]) == 2
    return capsys.readouterr().err


def test_an_unknown_adapter(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    there = adapter_summary(choose_adapter(announce=False))
    for options in (["--adapter", "Voodoo"], []):
        error = refused(capsys, *options)
        assert error.startswith("wgpu-q4: no adapter is called 'Voodoo'. There are: ")
        assert there in error
        monkeypatch.setenv("WGPU_Q4_ADAPTER", "Voodoo")  # for the second turn


def test_an_unknown_implementation(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (["--implementation", "no_such_gpu"], []):
        error = refused(capsys, *options)
        assert error.startswith("wgpu-q4: the WebGPU implementation 'no_such_gpu' cannot be")
        assert "wgpu, wgpudawn" in error
        monkeypatch.setenv("WGPU_Q4_IMPLEMENTATION", "no_such_gpu")


def test_an_implementation_that_does_not_load_hinders_no_other(tmp_path: Path) -> None:
    broken = "raise OSError('libgpu.so: undefined symbol')\n"
    (tmp_path / "wgpudawn.py").write_text(broken, encoding="utf-8")
    said = run_python("-m", "wgpu_q4.cli", "info", PYTHONPATH=str(tmp_path))
    assert "'wgpudawn' cannot be imported (libgpu.so: undefined symbol)" in said
    assert "What wgpu_q4 uses here" in said


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "wgpu_q4.cli", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


def test_the_command_succeeds() -> None:
    said = run_python("-m", "wgpu_q4.cli", "info")
    for title in ("WebGPU implementations", "Limits of ", "Features", "What wgpu_q4 uses here"):
        assert re.search(rf"^{title}", said, re.MULTILINE)


def test_the_command_fails_with_a_message_and_no_traceback(tmp_path: Path) -> None:
    for done, message in (
        (command("info", "--adapter", "Voodoo"), "wgpu-q4: no adapter is called 'Voodoo'"),
        (command("info", **drivers(tmp_path / "none")), "wgpu-q4: wgpu finds no GPU adapter."),
    ):
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr + done.stdout


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """As in ``wgpu-q4 kernel | head -1``: the pipe is closed before the command writes."""
    buffered = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for arguments in (["kernel"], ["kernel", "probe_halves"], ["--help"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "wgpu_q4.cli", *arguments],
            env=buffered,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 0


def test_the_command_prints_kernels(capsys: Captured) -> None:
    assert main(["kernel", "probe_halves"]) == 0
    assert "@compute @workgroup_size(16)" in capsys.readouterr().out
    assert main(["kernel", "probe_halve"]) == 2
    assert "probe_halves" in capsys.readouterr().err


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"wgpu-q4 {wgpu_q4.__version__}\n"


def test_usage_errors(capsys: Captured) -> None:
    for arguments in ([], ["no_such_command"], ["info", "--no-such-option"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert capsys.readouterr().err.startswith("usage: wgpu-q4")


def help_of(capsys: Captured, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_the_help_lists_each_command_on_one_line(capsys: Captured) -> None:
    said = help_of(capsys)
    assert max(map(len, said.splitlines())) <= 100
    listed = re.findall(r"^  ([a-z]+) +[a-z].+$", said, re.MULTILINE)
    assert sorted(listed) == sorted(helps())
    assert re.search(r"^your machine:\n  info  ", said, re.MULTILINE)


def test_each_help_has_examples_the_object_of_json_and_the_exit_status(capsys: Captured) -> None:
    for name in helps():
        said = help_of(capsys, name)
        assert re.search(rf"^examples:\n  .*wgpu-q4 {name}", said, re.MULTILINE), name
        assert keys_of_json(name), name
        for status, meaning in ((0, "all is well"), (1, "the answer is bad"), (2, "no answer")):
            assert re.search(rf"^  {status} +{meaning}", said, re.MULTILINE), name
    assert "  130  Control-C" in help_of(capsys)


def test_json_is_the_object_that_the_help_describes(tmp_path: Path, capsys: Captured) -> None:
    matrix, page = str(tmp_path / "tied.safetensors"), str(tmp_path / "page")
    wgpu_q4.save_file({"weight": wgpu_q4.quantize(np.ones((16, 32), np.float32))}, matrix)
    tiny = ("--shape", "16x32x32", "--ids", "2", "--rows", "1", "--seconds", "0.001")
    for arguments in (
        ("info",),
        ("check", "--only", "pack"),
        ("bench", *tiny),
        ("pack", matrix, str(tmp_path / "again.safetensors")),
        ("kernel",),
        ("kernel", "probe_halves"),
        ("web", matrix, "--out", page),
        ("completion", "zsh"),
    ):
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found.keys() == keys_of_json(arguments[0], "or of a model"), arguments


def test_words_go_to_standard_error_beside_json(capsys: Captured) -> None:
    tiny = ("--shape", "16x32x32", "--ids", "2", "--rows", "1", "--seconds", "0.001")
    assert main(["bench", *tiny, "--json"]) == 0
    said = capsys.readouterr()
    assert isinstance(json.loads(said.out, parse_constant=pytest.fail), dict)
    assert "embedding, ids=2, 16×32, rows, float32" in said.err


def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["web", str(tmp_path), "--out", str(tmp_path / "page")]) == 2
    error = capsys.readouterr().err
    assert "transformers" in error
    assert "pip install 'wgpu_q4[hf]'" in error


def test_control_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupted(path: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("wgpu_q4.commands.inspect.inspect_pte", interrupted)
    assert main(["inspect", "model.pte"]) == 130
    assert capsys.readouterr() == ("", "wgpu-q4: interrupted\n")
