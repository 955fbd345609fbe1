"""Code that runs once another package has been imported."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from wgpu_q4.nn.after_import import after_import


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose module ``registry`` nobody has imported."""
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").touch()
    (tmp_path / "a_package" / "registry.py").write_text("ENTRIES = ['its own']\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a_package", "a_package.registry"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return "a_package.registry"


def test_runs_when_the_module_is_complete_and_once(package: str) -> None:
    finders = list(sys.meta_path)
    entries: list[list[str]] = []
    after_import(package, lambda: entries.append(list(sys.modules[package].ENTRIES)))
    importlib.import_module("a_package")
    assert package not in sys.modules
    assert entries == []
    module = importlib.import_module(package)
    assert entries == [["its own"]]
    assert sys.meta_path == finders
    importlib.reload(module)
    assert entries == [["its own"]]


def test_runs_at_once_for_a_module_that_is_there(package: str) -> None:
    importlib.import_module(package)
    calls: list[int] = []
    after_import(package, lambda: calls.append(1))
    assert calls == [1]


def test_a_module_that_does_not_exist_is_missing_as_before(package: str) -> None:
    calls: list[int] = []
    after_import("a_package.nothing", lambda: calls.append(1))
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'a_package\.nothing'"):
        importlib.import_module("a_package.nothing")
    assert calls == []
