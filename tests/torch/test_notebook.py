"""The notebook runs from clean, and what it shows is what it has been committed with."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart.ipynb"


def read() -> NotebookNode:
    notebook: NotebookNode = nbformat.read(QUICKSTART, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


@pytest.fixture(scope="module")
def executed() -> NotebookNode:
    """The notebook, run without its stored outputs; a cell that raises fails the fixture."""
    notebook = read()
    for code in notebook.cells:
        if code.cell_type == "code":
            code.outputs = []
            code.execution_count = None
    resources = {"metadata": {"path": str(QUICKSTART.parent)}}
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources)
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})  # this checkout's package
    return notebook


def printed(notebook: NotebookNode, cell_id: str) -> str:
    """Everything that a cell printed; warnings about the adapter are on stderr and not in it."""
    outputs = cell(notebook, cell_id).outputs
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")


def shown(notebook: NotebookNode, cell_id: str, kind: str) -> str:
    """The one output of a cell in a MIME type."""
    (text,) = (o.data[kind] for o in cell(notebook, cell_id).outputs if kind in o.get("data", {}))
    return str(text)


def cell(notebook: NotebookNode, cell_id: str) -> NotebookNode:
    found: NotebookNode
    (found,) = (c for c in notebook.cells if c.id == cell_id)
    return found


def test_weight_is_shown_before_and_after_use(executed: NotebookNode) -> None:
    before = shown(executed, "quantize", "text/html")
    after = shown(executed, "once", "text/html")
    assert "none yet" in before
    assert "none yet" not in after
    assert "read by embedding, linear" in after
    # One line per copy on a device: there is one.
    assert after.count("read by") == 1
    assert shown(executed, "once", "text/plain") == shown(executed, "quantize", "text/plain")


def test_ops_agree_with_numpy(executed: NotebookNode) -> None:
    assert "equal to the stored values: True" in printed(executed, "embedding")
    linear = printed(executed, "linear")
    assert "within float32 rounding: True" in linear
    assert "[[17, 4095, 0], [256, 17, 99]]" in linear


def test_stored_once(executed: NotebookNode) -> None:
    sizes = [int(line.split()[-2].replace(",", "")) for line in lines(executed, "bytes")]
    float32, float16, two, one = sizes
    assert float32 == 2 * float16 == 4096 * 512 * 4
    assert two == 2 * one
    assert one == 4096 * 512 // 2 + 4096 * (512 // 32) * 2
    assert lines(executed, "save")[-2:] == ["one object: True", "same matrix: True"]


def test_plot(executed: NotebookNode) -> None:
    assert len(shown(executed, "plot", "image/png")) > 5000
    errors = [float(line.split()[-2]) for line in lines(executed, "plot")]
    assert errors == sorted(errors), "a larger group follows the matrix less closely"


def lines(notebook: NotebookNode, cell_id: str) -> list[str]:
    return printed(notebook, cell_id).splitlines()


def test_committed_outputs_are_those_of_this_code(executed: NotebookNode) -> None:
    committed = read()
    for ran, stored in zip(executed.cells, committed.cells, strict=True):
        if ran.cell_type == "code":
            assert printed(committed, stored.id) == printed(executed, ran.id)
            assert [o for o in stored.outputs if o.get("name") == "stderr"] == []
    assert "read by embedding, linear" in shown(committed, "once", "text/html")
    assert shown(committed, "plot", "image/png")
    counts = [c.execution_count for c in committed.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "cells were run in order, from clean"


def test_committed_notebook_names_no_place_on_a_machine() -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    assert [
        place for place in ("/home/", "/root/", "/tmp/", "/Users/", str(ROOT)) if place in text
    ] == []
