"""The end of the interpreter: calls that daemon threads are in end first, and no other begins.

Python stops daemon threads wherever they are, and native libraries take themselves apart while a
driver may still compile a kernel for such a thread: that ends in a crash.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from threading import RLock
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context

LONGEST_WAIT = 60.0
"""Seconds.  A call that takes longer may never end."""

_live: WeakSet[Context] = WeakSet()
_changing = RLock()
_locks_of_all: list[RLock] = []
_process = os.getpid()
_last_thread: int | None = None
"""The thread that ends the interpreter, from then on."""


def stay_out() -> None:
    """Return, or wait for the end of the process if it has begun and another thread ends it.

    An error would only be printed: a daemon thread that works in a loop does not know of the end.
    """
    if _last_thread is not None and _last_thread != threading.get_ident():
        threading.Event().wait()


def wait_for(context: Context) -> None:
    """Have the interpreter's end wait for the calls of a context."""
    with _changing:
        _live.add(context)


def wait_for_lock(lock: RLock) -> None:
    """Have the interpreter's end wait for a lock that is not a context's."""
    _locks_of_all.append(lock)


@atexit.register
def take_all_locks() -> None:
    """Take every lock under which drivers are called, and keep it: no other thread gets one.

    This thread may still make calls: the functions that `atexit` runs later do.
    """
    if os.getpid() != _process:  # a fork has the locks of threads that it does not have
        return
    global _last_thread
    _last_thread = threading.get_ident()
    until = time.monotonic() + LONGEST_WAIT
    with _changing:
        locks = [*_locks_of_all, *(context.lock for context in list(_live))]
    for lock in locks:
        lock.acquire(timeout=max(0.0, until - time.monotonic()))
