"""Replace a file by a new one, whole or not at all.

On Linux the new file has no name while it is written, so a process that is killed leaves nothing.
It gets a name at the end.  If a file is to be replaced, that name is a temporary one for the moment
between two system calls, because a nameless file cannot replace another.  Where nameless files
cannot be had, the new file has the temporary name all the time.

A temporary name tells which target it is for, and the process that writes it holds a lock on it.
The next save of the same target removes the files of that form that nobody holds.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be removed there, which does for a lock
    fcntl = None  # type: ignore[assignment]

_NO_NAMELESS_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EPERM}
"""How a kernel or a file system says that it makes no nameless files."""

_NO_FOLDER_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EBADF}


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Yield a new file, which takes the place of ``path`` if the block ends without an error.

    The file is on the disk, name and all, when the block has been left.  A symbolic link is
    followed; a file that is replaced keeps its permissions.

    Raises:
        OSError: the file cannot be written; `FileNotFoundError` if its directory does not exist.
    """
    try:
        replaced = os.stat(path)  # raises for a link that leads to itself
    except FileNotFoundError:
        replaced = None
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, "no such directory", directory)
    if replaced is not None and not stat.S_ISREG(replaced.st_mode):
        if stat.S_ISDIR(replaced.st_mode):
            raise IsADirectoryError(errno.EISDIR, "path is a directory, not a file", target)
        raise FileExistsError(errno.EEXIST, "path exists and is not a regular file", target)
    _sweep(target)
    temporary = _temporary(target)
    named = False
    try:
        descriptor = _nameless(directory)
        if descriptor is None:
            named = True
            descriptor = _owned(temporary)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if replaced is not None:
                _set_mode(descriptor, temporary, stat.S_IMODE(replaced.st_mode))
            os.fsync(descriptor)
            if not named:
                if replaced is None and _link(descriptor, target):
                    _sync_folder(directory)
                    return
                named = True
                if not _link(descriptor, temporary):
                    raise FileExistsError(errno.EEXIST, "a temporary name is taken", temporary)
            if fcntl is not None:  # while the file is open, its lock keeps others from sweeping it
                os.replace(temporary, target)
        if fcntl is None:
            os.replace(temporary, target)
    except BaseException:
        if named:
            with suppress(OSError):
                os.unlink(temporary)
        raise
    _sync_folder(directory)


def _prefix(target: str) -> str:
    """Return how the temporary names of ``target`` begin, of one length for any target."""
    name = os.path.basename(target)
    return f".wgpu-q4-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-"


def _temporary(target: str) -> str:
    name = f"{_prefix(target)}{secrets.token_hex(8)}.tmp"
    return os.path.join(os.path.dirname(target), name)


def _nameless(directory: str) -> int | None:
    """Return a new nameless file of ``directory``, locked, or None if there are none."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError as error:
        if error.errno in _NO_NAMELESS_FILES:
            return None
        raise
    _hold(descriptor)
    return descriptor


def _owned(temporary: str) -> int:
    """Return a new file of that name, locked."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
    while True:
        descriptor = os.open(temporary, flags, 0o666)
        _hold(descriptor)
        # Another process may have swept it in the moment before it was locked.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(temporary), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def _hold(descriptor: int) -> None:
    """Lock the file for as long as it is open; the lock ends with the process."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _link(descriptor: int, name: str) -> bool:
    """Give a nameless file its name; return False if another file has it."""
    try:
        # With a directory's descriptor, which an absolute path ignores, Python calls linkat() and
        # follows the link in /proc; without, it calls link(), which does not.
        os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor)
    except FileExistsError:
        return False
    return True


def _set_mode(descriptor: int, temporary: str, mode: int) -> None:
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    else:
        os.chmod(temporary, mode)


def _sweep(target: str) -> None:
    """Remove the temporary files of ``target`` that no process holds any more."""
    directory, prefix = os.path.dirname(target), _prefix(target)
    with suppress(OSError):
        for entry in os.scandir(directory):
            if entry.name.startswith(prefix) and entry.name.endswith(".tmp"):
                _remove_stale(entry.path)


def _remove_stale(temporary: str) -> None:
    with suppress(OSError):
        if fcntl is None:
            os.unlink(temporary)
            return
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if somebody holds it
            os.unlink(temporary)
        finally:
            os.close(descriptor)


def _sync_folder(directory: str) -> None:
    """Make the new name durable, where directories can be synced."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
