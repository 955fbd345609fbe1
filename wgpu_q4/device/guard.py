"""What holds around each call on a device: no call inside a call, and every error is typed."""

from __future__ import annotations

from threading import Lock, local
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import ref

from wgpu_q4.errors import DeviceError, DeviceLimitError

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context


_latest = local()
"""``guard``: a weak reference to the guard that this thread entered last."""


class Guard:
    """A context manager around the calls on one device; enter it with the context's lock held.

    `Context.lock` lets the thread that holds it enter again, and Python may start a call in the
    middle of another one of the same thread: in a signal handler, or in a ``__del__`` that the
    collector runs.  The inner call would overwrite the buffers of the outer one, so the guard
    refuses it::

        with context.lock, context.guard, context.guard.busy:
            ...

    The guard also keeps the device alive until the call ends: `wgpu_q4.device.context` has
    ``device.destroy()`` go through `destroy`, because wgpu-native aborts the process if a buffer
    is destroyed between its mapping and its reading.

    Attributes:
        busy: locked during a call.  It is a lock and has a ``with`` of its own, because a flag that
            Python code sets could stay set after an interrupt.
        is_lost: True if the device is known to be lost.
    """

    def __init__(self, context: Context) -> None:
        self.busy = Lock()
        self.is_lost = False
        self._context = context
        self._destroy = context.device.destroy
        self._destroy_is_due = False
        self._reference = ref(self)

    def refuse_within_another(self) -> None:
        """Raise if this thread is in a call on another device.

        Two threads that start a call on each other's device within a call of their own would wait
        for each other for ever.

        Raises:
            DeviceError: as for a call within a call on one device.
        """
        latest: ref[Guard] | None = getattr(_latest, "guard", None)
        if latest is None or latest is self._reference:
            return
        other = latest()
        # The thread may have left that call since: only its lock tells.
        if other is not None and other.busy.locked() and other._context.lock._is_owned():  # type: ignore[attr-defined]
            other._refuse()

    def destroy(self) -> None:
        """Destroy the device when no call is running on it."""
        with self._context.lock:
            self._destroy_is_due = True
            if not self.busy.locked():  # else the call is this thread's, and `__exit__` destroys
                self._destroy_now()

    def __enter__(self) -> None:
        if self.busy.locked():  # by this thread: others wait for the context's lock
            self._refuse()
        _latest.guard = self._reference
        if self._destroy_is_due:  # an interrupt came before `__exit__` could do it
            self._destroy_now()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        try:
            if error is not None:
                self._name(error)
        finally:
            if self._destroy_is_due:
                self._destroy_now()

    def _refuse(self) -> NoReturn:
        raise DeviceError(
            f"this thread is already in a call on {self._context.adapter_summary}: a signal "
            f"handler, an object's __del__ or, in a browser, another task made another one in the "
            f"middle of it. Do the work after the call, for example by setting a flag that the "
            f"main loop looks at, or by an asyncio.Lock around the calls of tasks"
        )

    def _destroy_now(self) -> None:
        self.is_lost = True
        self._destroy()
        self._destroy_is_due = False

    def _name(self, error: BaseException) -> None:
        """Raise a `DeviceError` that says what ``error`` means, if it is the device's."""
        context = self._context
        of_device = isinstance(error, context.implementation.GPUError)
        if not of_device and (
            not isinstance(error, DeviceError) or isinstance(error, DeviceLimitError)
        ):
            return
        if not self._is_lost_after(error):
            if not of_device:
                return
            raise DeviceError(f"{context.adapter_summary} refuses a call: {said(error)}") from error
        self.is_lost = True
        # wgpudawn's traceback refers to the error itself.  Python may crash when its collector
        # takes such a ring apart together with the buffers that were being written.
        error.with_traceback(None)
        raise DeviceError(
            f"the device {context.adapter_summary} is lost: it was destroyed, or its driver gave "
            f"up. Use another one; wgpu_q4.request_device() makes it"
        ) from error

    def _is_lost_after(self, error: BaseException) -> bool:
        """Return True if ``error``, or a buffer that is made now, shows that the device is lost."""
        if self.is_lost or "is lost" in str(error):
            return True
        context = self._context
        try:
            context.device.create_buffer(size=4, usage=context.usage("COPY_DST"))
        except context.implementation.GPUError as next_error:
            return "is lost" in str(next_error)
        return False


def said(error: Any) -> str:
    """Return what an error of wgpu says, on one line."""
    return " ".join(str(error).split())
