"""Run the notebooks of ``examples/`` from clean, and keep what they show: ``make notebooks``.

Names as arguments run these alone.  What is written depends on the notebook and the adapter only:
warnings (of a software adapter, say) and the times of execution are left out.  Pictures are stored
in few colours, which makes them five times smaller.  The tests run the notebooks in the same way,
and compare.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples"
_COLOURS = 64


def main(names: Sequence[str]) -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            print(f"running {path.name}", flush=True)
            nbformat.write(execute(path), path)  # type: ignore[no-untyped-call]


def read(path: Path) -> NotebookNode:
    """Return a notebook as it is stored."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def execute(path: Path, environment: Mapping[str, str] | None = None) -> NotebookNode:
    """Return a notebook with what its cells show now; the file stays as it is.

    Args:
        path: of the notebook; its cells run in its folder.
        environment: variables of the kernel beside those of this process.

    Raises:
        CellExecutionError: a cell raised an error, and has no tag ``raises-exception``.
    """
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources=resources, record_timing=False
    )
    # The package of this checkout, whatever is installed.
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})})
    notebook.metadata = read(path).metadata  # a kernel adds its version of Python
    for cell in code_cells(notebook):
        cell.outputs = _kept(cell.outputs)
    return notebook


def _kept(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Return what to store of a cell: its text in one piece, and small pictures."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text  # where a kernel cuts it depends on the time it takes
            continue
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _small(output.data["image/png"])
        kept.append(output)
    return kept


def _small(png: str) -> str:
    """Return a picture, in base64, with fewer colours and a white ground."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(ground, picture).convert("RGB")
    file = io.BytesIO()
    flat.quantize(_COLOURS, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


if __name__ == "__main__":
    main(sys.argv[1:])
