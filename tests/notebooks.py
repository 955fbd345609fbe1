"""What the tests of the notebooks share: what a cell printed and showed, and the committed outputs.

A module of tests names its notebook, and runs it once::

    executed = executed_notebook("quickstart")
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from nbformat import NotebookNode

from tools import notebooks

MOST_BYTES = 100_000
"""Of a notebook's file: outputs are committed, and kept small."""

_MOST_LINES = 26
"""Of a cell: what a reader takes in at one look."""

_MOST_COLUMNS = 92
"""Of a line: what the site of the documentation shows without a scroll bar."""

_PLACES = ("/home/", "/root/", "/tmp/", "/Users/", str(notebooks.ROOT))


def executed_notebook(name: str) -> Callable[[], NotebookNode]:
    """Return a fixture: the notebook, run from clean; a cell that raises an error fails it."""

    @pytest.fixture(scope="module", name="executed")
    def fixture() -> NotebookNode:
        return notebooks.execute(path_of(name))

    return fixture


def path_of(name: str) -> Path:
    return notebooks.FOLDER / f"{name}.ipynb"


def cell(notebook: NotebookNode, cell_id: str) -> NotebookNode:
    found: NotebookNode
    (found,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return found


def lines(notebook: NotebookNode, cell_id: str) -> list[str]:
    """Return the lines that a cell printed; warnings about the adapter are not among them."""
    outputs = cell(notebook, cell_id).outputs
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    return text.splitlines()


def shown(notebook: NotebookNode, cell_id: str, kind: str = "text/html") -> str:
    """Return the one output of a cell in a MIME type."""
    outputs = cell(notebook, cell_id).outputs
    (text,) = (output.data[kind] for output in outputs if kind in output.get("data", {}))
    return str(text)


def check_committed(name: str, executed: NotebookNode, *, varying: str = "") -> None:
    """Compare the outputs that are committed with those of this run, and look at the file.

    Args:
        name: of the notebook.
        executed: the same, run now.
        varying: the cell whose numbers depend on the adapter in their last digits, if there is
            one: its committed lines must be as many.
    """
    committed = notebooks.read(path_of(name))
    for stored, ran in zip(committed.cells, executed.cells, strict=True):
        if stored.cell_type != "code":
            continue
        kinds = [[_kinds(output) for output in cell.outputs] for cell in (stored, ran)]
        assert kinds[0] == kinds[1], f"{stored.id}: run `make notebooks`, and commit the outputs"
        said = [lines(notebook, stored.id) for notebook in (committed, executed)]
        if stored.id == varying:
            said = [[line.split()[0] for line in each] for each in said]
        assert said[0] == said[1], f"{stored.id}: run `make notebooks`, and commit the outputs"
    _check_file(name, committed)


def _kinds(output: NotebookNode) -> list[str]:
    return [output.output_type, *sorted(output.get("data", {}))]


def _check_file(name: str, notebook: NotebookNode) -> None:
    """Hold a file to what makes it good to read, and small."""
    text = path_of(name).read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert [place for place in _PLACES if place in text] == []
    code = notebooks.code_cells(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [cell.id for cell in code if len(cell.source.splitlines()) > _MOST_LINES] == []
    wide = [line for cell in code for line in cell.source.splitlines() if len(line) > _MOST_COLUMNS]
    assert wide == []
    words = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    titles = [line for source in words for line in source.splitlines() if line.startswith("# ")]
    assert len(titles) == 1
    assert words[0].startswith(titles[0])
    for before, drawn in pairwise(notebook.cells):
        if _has_picture(drawn):
            assert before.cell_type == "markdown", f"{drawn.id}: say above it what to see"


def _has_picture(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
