"""Saving a file: whole or absent, with the right permissions, and only what may be saved."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.weight_files import assert_equal, names_in, random_floats, run_python
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file, save_file
from wgpu_q4.weight import Q4Weight


@pytest.fixture
def old_file(tmp_path: Path) -> Iterator[Path]:
    """A saved file; afterwards it must be whole, and nothing may lie beside it."""
    path = tmp_path / "weights.safetensors"
    weight = Q4Weight.quantize(random_floats())
    save_file({"old": weight}, path)
    content = path.read_bytes()
    yield path
    assert path.read_bytes() == content
    assert_equal(load_file(path)["old"], weight)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("step", ["write_tensors", "os.fsync", "os.chmod", "os.replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file(
    old_file: Path, step: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setattr(f"wgpu_q4.files.safetensors.{step}", fail)
    with pytest.raises(type(failure)):
        save_file({"new": Q4Weight.quantize(random_floats(seed=1))}, old_file)
    monkeypatch.undo()


def test_a_save_that_fails_halfway_through_its_bytes_leaves_the_old_file(old_file: Path) -> None:
    code = """
        import resource, sys
        import numpy as np
        from wgpu_q4.files import save_file
        from wgpu_q4.weight import Q4Weight
        weight = Q4Weight(np.zeros((1024, 4096), np.uint8), np.ones((1024, 8), np.float32))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            save_file({"new": weight}, sys.argv[1])
        except OSError as error:
            print(error)
    """
    done = run_python(code, old_file)
    assert done.returncode == 0, done.stderr
    assert "weights.safetensors was not written" in done.stdout
    assert "File too large" in done.stdout


def test_a_save_that_is_killed_leaves_the_old_file(old_file: Path) -> None:
    code = """
        import os, signal, sys
        import numpy as np
        from wgpu_q4.files import safetensors as ours
        from wgpu_q4.weight import Q4Weight
        write = ours.write_tensors
        def write_half_and_die(tensors, path, metadata):
            write(tensors, path, metadata)
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        ours.write_tensors = write_half_and_die
        weight = Q4Weight(np.zeros((64, 64), np.uint8), np.ones((64, 1), np.float32))
        ours.save_file({"new": weight}, sys.argv[1])
    """
    assert run_python(code, old_file).returncode == -signal.SIGKILL
    # Nobody is left to remove the half file; it has a name of its own and is hidden.
    left = [name for name in names_in(old_file.parent) if name != old_file.name]
    assert len(left) == 1
    assert left[0].startswith(".wgpu-q4-")
    (old_file.parent / left[0]).unlink()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_has_the_permissions_that_the_umask_allows(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        save_file({"w": Q4Weight.quantize(random_floats())}, tmp_path / "w")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "w").st_mode) == mode


def test_a_replaced_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path) -> None:
    weight = Q4Weight.quantize(random_floats())
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "w", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    save_file({"w": weight}, link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert_equal(load_file(link)["w"], weight)


# Bad arguments


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
