"""What `save_file` takes: named matrices, and a path that a file can have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.weight_files import names_in, random_floats
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file, save_file
from wgpu_q4.weight import Q4Weight


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([("w", 1)], "weights must be a dict {name: Q4Weight}, not list"),
        (Q4Weight.quantize(random_floats()), "must be a dict {name: Q4Weight}, not Q4Weight"),
        (None, "not NoneType"),
        ({1: Q4Weight.quantize(random_floats())}, r"every name must be a str, not int \(1\)"),
        ({"w": random_floats()}, r"weights\['w'\] must be a Q4Weight, not ndarray"),
        ({"w": None}, r"weights\['w'\] must be a Q4Weight, not NoneType"),
    ],
)
def test_only_named_weights_are_saved(tmp_path: Path, weights: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        save_file(weights, tmp_path / "w")
    assert names_in(tmp_path) == []


def test_nothing_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="weights is empty: give at least one"):
        save_file({}, tmp_path / "w")


def test_a_name_is_unicode(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"'a\\ud800' is not valid Unicode"):
        save_file({"a\ud800": Q4Weight.quantize(random_floats())}, tmp_path / "w")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("path", [None, 3, b"bytes", ["w"]])
def test_a_path_is_a_path(path: Any) -> None:
    message = f"path must be a str or a pathlib.Path, not {type(path).__name__}"
    with pytest.raises(TypeError, match=message):
        save_file({"w": Q4Weight.quantize(random_floats())}, path)
    with pytest.raises(TypeError, match=message):
        load_file(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such directory: '.*/missing'"):
        save_file({"w": Q4Weight.quantize(random_floats())}, tmp_path / "missing" / "w")


def test_what_is_not_a_file_is_not_replaced(tmp_path: Path) -> None:
    weights = {"w": Q4Weight.quantize(random_floats())}
    with pytest.raises(IsADirectoryError, match="path is a directory"):
        save_file(weights, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="not a regular file"):
        save_file(weights, tmp_path / "pipe")
    assert names_in(tmp_path) == ["pipe"]


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        load_file(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        load_file(tmp_path)
