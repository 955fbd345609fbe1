"""Each block of Python in a Markdown file runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.devices import ROOT
from tests.snippets import GIVEN, snippets

FOLDERS = ("docs", "wgsl", "vulkan_glsl", "benchmarks")
FILES = [
    file
    for file in (*ROOT.glob("*.md"), *(f for name in FOLDERS for f in ROOT.glob(f"{name}/**/*.md")))
    if snippets(file)
]


def test_the_readme_has_blocks() -> None:
    assert ROOT / "README.md" in FILES
    assert {snippet.given for file in FILES for snippet in snippets(file)} <= {"", *GIVEN}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_blocks_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for snippet in snippets(file):
        snippet.run(namespace)
