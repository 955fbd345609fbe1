"""The documentation: the site builds, its links lead somewhere, its figures are those of the code.

`tests/executorch/test_snippets.py` runs the code on its pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import wgpu_q4
from tools.docs.command_help import help_of
from tools.docs.figures import FIGURES, draw
from tools.docs.figures.nibbles import place_in_block
from tools.docs.short_types import shortened
from wgpu_q4.kernels import all_shaders

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    options = (
        "-W",
        "--keep-going",
        "--nitpicky",
        "--quiet",
        "-c",
        "docs",
        "-d",
        str(out / "cache"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "-b", "html", ".", str(out / "html")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


class _Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found[key] or "" for key in ("id", "name") if key in found}
        for key in ("href", "src"):
            if found.get(key):
                self.targets.append(str(found[key]))


def broken_links(folder: Path) -> Iterator[str]:
    """Yield the links of the pages in a folder that lead to no file, or to no place in it."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[file].anchors if file in pages else None
            if not file.exists() or (
                parts.fragment and known is not None and unquote(parts.fragment) not in known
            ):
                yield f"{path.relative_to(folder)}: {target}"


def test_every_link_leads_somewhere(site: Path) -> None:
    assert not list(broken_links(site))
    assert 'url=docs/index.html"' in (site / "index.html").read_text()


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a id="x" href="b.html#y"><a href="b.html#z"><a href="c">')
    (tmp_path / "b.html").write_text('<p id="y"><a href="a.html#x"><a href="https://example.org/">')
    assert sorted(broken_links(tmp_path)) == ["a.html: b.html#z", "a.html: c"]


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = (site / "docs" / "api.html").read_text(encoding="utf-8")
    described = set(re.findall(r'id="wgpu_q4\.(\w+)"', text))
    assert set(wgpu_q4.__all__) - {"__version__"} <= described
    # Types have the names that the source gives them.
    assert "TypeAliasForwardRef" not in text
    assert "NDArray[uint8]" in text
    assert "-&gt;" not in text


def test_types_are_shortened() -> None:
    long = "ndarray[tuple[Any, ...], dtype[float32]] | TypeAliasForwardRef('Layout')"
    assert shortened(long) == "NDArray[float32] | Layout"
    assert shortened("dict[str, int]") == "dict[str, int]"


def test_every_command_has_its_help(site: Path) -> None:
    commands, _, _ = help_of().partition("exit status:")
    listed = re.findall(r"^  (\w+) {2,}", commands, re.M)
    assert len(listed) > 6
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    assert re.findall(r"```\{command-help\} (\w+)", page) == re.findall(r"^## (\w+)", page, re.M)
    assert re.findall(r"^## (\w+)", page, re.M) == listed
    assert "usage: wgpu-q4 pack" in (site / "docs" / "command-line.html").read_text()
    with pytest.raises(ValueError, match="no command 'sing'"):
        help_of("sing")


def test_the_figures_are_those_that_are_drawn(tmp_path: Path) -> None:
    assert {path.stem for path in (DOCS / "figures").iterdir()} == set(FIGURES)
    for path in draw(tmp_path):
        committed = DOCS / "figures" / path.name
        assert path.read_bytes() == committed.read_bytes(), "run python -m tools.docs.figures"
        assert "prefers-color-scheme: dark" in committed.read_text()
        assert committed.stat().st_size < 150_000


@pytest.mark.parametrize("row", range(8))
@pytest.mark.parametrize("column", range(4))
def test_the_drawn_block_is_that_of_the_text(row: int, column: int) -> None:
    """Component r holds rows r and r + 4 of a column in the low and the high half of its byte."""
    assert place_in_block(row, column) == (row % 4, column, row >= 4)


def test_the_screenshots_are_small_and_shown() -> None:
    pictures = sorted((DOCS / "screenshots").iterdir())
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    for picture in pictures:
        assert picture.stat().st_size < 150_000
        assert f"](screenshots/{picture.name})" in pages


def test_the_readme_fits_on_a_screen() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 600


def test_the_kernels_that_the_pages_name_can_be_printed() -> None:
    known = {shader.name for shader in all_shaders()}
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *DOCS.glob("*.md"))]
    named = {name for text in texts for name in re.findall(r"wgpu-q4 kernel ([a-z]\w+)", text)}
    assert named
    assert named <= known
