"""The folder of a page on which Python runs with this package: static files and a wheel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from tools.pyodide import parts

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "pyodide"
STYLE = ROOT / "examples" / "web" / "style.css"
SETTINGS = "page.json"


def write(out: Path, *, local: bool = False) -> None:
    """Write the folder.

    Args:
        out: a folder that does not exist, is empty, or was written by an earlier call.
        local: True to put Pyodide and numpy into the folder, so that the page needs no CDN.

    Raises:
        FileExistsError: ``out`` holds other files.
        FileNotFoundError: with ``local``, a part of Pyodide is missing.
    """
    if out.exists() and any(out.iterdir()) and not (out / SETTINGS).is_file():
        raise FileExistsError(
            f"{out} holds files that this command did not write: name a folder that is new or empty"
        )
    copied = parts.all_files() if local else []
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    (wheel,) = map(Path, WheelBuilder(str(ROOT)).build(directory=str(out.resolve())))
    for path in (*EXAMPLE.iterdir(), STYLE):
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    folder = out / "pyodide"
    for path in copied:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / path.name)
    settings = {"pyodide": "pyodide/" if local else parts.address(), "wheel": wheel.name}
    (out / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
