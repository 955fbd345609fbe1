"""What is no regular file, and what is no path, is refused at once by every reader."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weight_files import assert_equal, names_in, random_floats
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file, regular, save_file
from wgpu_q4.foreign import from_gguf
from wgpu_q4.pte import inspect_pte
from wgpu_q4.weight import Q4Weight

Reader = Callable[[Any], Any]

READERS = {
    "load_file": load_file,
    "from_gguf": lambda path: from_gguf(path, "w"),
    "inspect_pte": inspect_pte,
}


@pytest.fixture(params=list(READERS.values()), ids=list(READERS))
def read(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """A reader, which is interrupted if it waits."""

    def interrupt(*_: Any) -> None:
        raise TimeoutError("the reader waits")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(20)
    yield request.param
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_pipes_sockets_and_devices(tmp_path: Path, read: Reader) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/zero", "/dev/null"):
            with pytest.raises(FormatError, match=f"{path} is not a regular file"):
                read(path)


def test_a_pipe_that_takes_the_place_of_a_file(
    tmp_path: Path, read: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w"
    os.mkfifo(path)
    check = regular._check_regular
    looks = iter([lambda *_: None, check])  # at the first look it was a file
    monkeypatch.setattr(regular, "_check_regular", lambda *found: next(looks)(*found))
    with pytest.raises(FormatError, match="is not a regular file"):
        read(path)


def test_directories_and_missing_files(tmp_path: Path, read: Reader) -> None:
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        read(tmp_path / "missing")
    with pytest.raises(NotADirectoryError):
        read("/dev/null/w")


def test_empty_files(tmp_path: Path, read: Reader) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match="empty is n"):
        read(tmp_path / "empty")


def save(path: Any) -> None:
    save_file({"w": Q4Weight.quantize(random_floats())}, path)


@pytest.mark.parametrize("use", [*READERS.values(), save], ids=[*READERS, "save_file"])
def test_paths_that_no_file_has(tmp_path: Path, use: Reader) -> None:
    with pytest.raises(FormatError, match=r"path '.*a\\x00b' has a NUL character"):
        use(f"{tmp_path}/a\0b")
    with pytest.raises(FormatError, match=r"path '.*a\\ud800' is not a file name"):
        use(f"{tmp_path}/a\ud800")
    with pytest.raises(TypeError, match=r"path must be a str or a pathlib\.Path, not bytes"):
        use(b"w")
    assert names_in(tmp_path) == []


def test_a_name_that_is_not_unicode_can_be_printed(tmp_path: Path, read: Reader) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    Path(path).write_bytes(b"something else entirely" * 9)
    with pytest.raises(FormatError, match=r"udcff is n") as caught:
        read(path)
    str(caught.value).encode()


def test_a_file_replaced_while_it_is_read_is_one_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their headers differ in length: the header of one with the data of the other is nonsense.
    one, other = Q4Weight.quantize(random_floats(3, 64)), Q4Weight.quantize(random_floats(90, 96))
    path = tmp_path / "w"
    save_file({"w": one}, path)
    expected = np.array(one.packed)
    steps = ["stat", "open", "fstat", "close"]
    for step in steps:
        call = getattr(os, step)
        save_file({"w": one}, path)

        def replace(*args: Any, call: Any = call, step: str = step, **options: Any) -> Any:
            result = call(*args, **options)
            monkeypatch.undo()
            save_file({"a longer name": other}, path)
            return result

        monkeypatch.setattr(os, step, replace)
        (found,) = load_file(path, verify=True).values()
        monkeypatch.undo()
        if step == "stat":  # not yet opened
            assert_equal(found, other)
        else:
            np.testing.assert_array_equal(found.packed, expected)
