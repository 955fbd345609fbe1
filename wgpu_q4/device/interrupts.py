"""Control-C at moments when nothing can be raised: in functions that native code calls.

wgpu-py hands functions of its own to the driver's library, which calls them in the middle of a
request.  Python runs the handlers of signals there too.  What a handler raises in such a function
is printed and lost, and the request ends in another error, or in none.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Postponed:
    """A context manager that lets the handlers of signals run when the block has ended.

    Python runs them in the main thread alone; in others the block is not changed.  A handler that
    raises, as that of Control-C does, raises at the end of the block::

        with Postponed():
            adapter.request_device_sync()
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._arrived: list[int] = []

    def __enter__(self) -> Postponed:
        if threading.current_thread() is threading.main_thread():
            try:
                for number in signal.valid_signals():
                    handler = signal.getsignal(number)
                    if callable(handler):  # one that Python runs
                        self._handlers[number] = handler
                        signal.signal(number, self._note)
            except BaseException:  # of a handler that is not postponed yet
                self._restore()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._restore()
        self._deliver()

    def _deliver(self) -> None:
        if self._arrived:
            try:
                signal.raise_signal(self._arrived.pop(0))
            finally:
                self._deliver()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._arrived.append(number)

    def _restore(self) -> None:
        interrupt: BaseException | None = None
        while self._handlers:
            try:
                for number, handler in list(self._handlers.items()):
                    signal.signal(number, handler)
                    del self._handlers[number]
            except BaseException as error:  # of a handler that is back; the others must follow
                interrupt = error
        if interrupt is not None:
            raise interrupt
