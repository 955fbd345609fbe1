"""``wgpu-q4 completion``: the script of bash is asked by a bash; of the others, what it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_help import helps
from wgpu_q4.cli import build_parser, main
from wgpu_q4.commands.completion import GLOBS, arguments_of
from wgpu_q4.kernels import all_shaders

Captured = pytest.CaptureFixture[str]

ASK = """
set -e
source script.bash
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
$(complete -p wgpu-q4 | sed 's/.*-F \\([^ ]*\\) .*/\\1/') wgpu-q4 "${COMP_WORDS[$COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def home(tmp_path: Path, capsys: Captured) -> Path:
    """A folder with files of all kinds, and the script."""
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script.bash").write_text(capsys.readouterr().out)
    (tmp_path / "folder").mkdir()
    for name in ("a.gguf", "b.safetensors", "c.pte", "tokenizer.json", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def completed(home: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    asked = ["bash", "--norc", "-c", ASK, "bash", "wgpu-q4", *words]
    # The names of kernels are asked from the command itself.
    program = home / "wgpu-q4"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wgpu_q4.cli "$@"\n')
    program.chmod(0o755)
    path = f"{home}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(asked, cwd=home, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_values(home: Path) -> None:
    assert completed(home, "") >= helps().keys()
    assert completed(home, "in") == {"info", "inspect"}
    assert completed(home, "pack", "--sc") == {"--scales"}
    assert completed(home, "pack", "--rule", "") == {"absmax", "mse"}
    assert completed(home, "completion", "") >= {"bash", "zsh", "fish", "tcsh"}


def test_bash_completes_files_by_their_endings(home: Path) -> None:
    assert completed(home, "inspect", "") == {"c.pte", "folder"}
    assert completed(home, "pack", "") == {"a.gguf", "b.safetensors", "folder"}
    assert completed(home, "pack", "a.gguf", "") == {"b.safetensors", "folder"}
    assert completed(home, "bench", "--model", "") == {"a.gguf", "folder"}
    assert completed(home, "web", "") == {"a.gguf", "b.safetensors", "folder"}
    page = ("web", "b.safetensors")
    assert completed(home, *page, "--tokenizer", "") == {"tokenizer.json", "folder"}
    assert completed(home, *page, "--out", "") == {"folder"}


def test_bash_completes_the_names_of_kernels(home: Path) -> None:
    probes = {shader.name for shader in all_shaders() if shader.name.startswith("probe_")}
    assert probes
    assert completed(home, "kernel", "probe_") == probes


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "powershell"])
def test_other_shells_have_a_script_that_names_each_command(shell: str, capsys: Captured) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in (*helps(), "safetensors", "gguf", "pte"):
        assert name in script, name


def test_each_path_is_completed_by_files(home: Path) -> None:
    for argument in arguments_of(build_parser()):
        if argument.type is Path or "." in str(argument.metavar):
            assert argument.metavar is not None
            assert argument.metavar in {*GLOBS, "DIR"}, argument


def test_without_shtab_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    said = "wgpu-q4: completion needs shtab: pip install 'wgpu_q4[completion]'\n"
    assert capsys.readouterr() == ("", said)
