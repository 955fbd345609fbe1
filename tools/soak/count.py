"""Count what a process holds: its memory, Python's objects, open files, threads."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """What a process holds at one moment.

    Attributes:
        memory: resident bytes.
        objects: objects that Python's collector knows.
        files: open file descriptors.
        threads: threads that Python started.
    """

    memory: int
    objects: int
    files: int
    threads: int

    def as_dict(self) -> dict[str, int]:
        """Return the counts by their names."""
        return asdict(self)


def held() -> Held:
    """Collect garbage and count; on Linux, whose ``/proc`` knows."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        objects=len(gc.get_objects()),
        files=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
    )
