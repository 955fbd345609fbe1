"""Paths that a user gives, and regular files opened once and mapped.

A reader checks and maps one open file.  If another program replaces the path meanwhile, the reader
still sees one whole file.  Pipes and devices are refused before they are opened: reading a pipe
waits until somebody writes to it, and opening a device may already do something.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError

StrPath: TypeAlias = "str | os.PathLike[str]"

# Without O_NONBLOCK, open() waits for the writer of a pipe that took the file's place after stat().
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def checked_path(path: object) -> str:
    """Return ``path`` as the text of a path that the system can be asked for.

    Raises:
        TypeError: neither a ``str`` nor a ``pathlib.Path``.
        FormatError: a NUL or half of a surrogate pair, which no file name has.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a pathlib.Path, not {type(path).__name__}")
    if "\0" in text:
        raise FormatError(f"path {text!r} has a NUL character, which no file name can have")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise FormatError(f"path {text!r} is not a file name: {error.reason}") from error
    return text


def shown(path: str) -> str:
    """Return ``path`` for a message: bytes that are not Unicode become escapes."""
    return path.encode(errors="backslashreplace").decode()


def map_file(path: str) -> NDArray[np.uint8]:
    """Return the bytes of a regular file, mapped read-only; they outlive the file's name.

    Raises:
        FormatError: a pipe, a socket or a device.
        OSError: the file cannot be opened; `IsADirectoryError` if it is a directory.
    """
    _check_regular(path, os.stat(path))
    descriptor = os.open(path, _READ)
    try:
        found = os.fstat(descriptor)  # the path may lead elsewhere by now
        _check_regular(path, found)
        if not found.st_size:  # nothing can be mapped
            return np.frombuffer(b"", np.uint8)
        # The mapping duplicates the descriptor.
        return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
    finally:
        os.close(descriptor)


def _check_regular(path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(f"{shown(path)} is not a regular file, and only those can be mapped")
