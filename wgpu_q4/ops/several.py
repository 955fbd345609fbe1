"""The ops on several devices of this process, each of which holds a share of a weight's rows.

``device=[first, second]`` in an op stands for them.  They work at the same time, in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, NamedTuple, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

from wgpu_q4.device.context import Context, context_for
from wgpu_q4.ops.shares import share_out
from wgpu_q4.weight import Q4Weight

ResultT = TypeVar("ResultT")

_MOST = 64
"""Devices; more than one machine has."""

_threads = ThreadPoolExecutor(_MOST, thread_name_prefix="wgpu_q4 device")


class Share(NamedTuple):
    """What one of several devices holds.

    Attributes:
        device: as in `wgpu_q4.embedding`.
        rows: its rows of the whole weight.
        weight: these rows.
    """

    device: Any
    rows: range
    weight: Q4Weight

    @property
    def columns(self) -> slice:
        """The rows as a slice, which are the columns of the logits."""
        return slice(self.rows.start, self.rows.stop)


def is_several(device: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Tell whether ``device`` stands for several devices."""
    return isinstance(device, (list, tuple))


def contexts_for(device: Any) -> list[Context]:
    """Return the contexts of one device, or of each of several.

    Raises:
        TypeError, DeviceError: as `wgpu_q4.device.context_for` raises.
        ValueError: no device, one of them twice, or too many.
    """
    if not is_several(device):
        return [context_for(device)]
    if not 1 <= len(device) <= _MOST:
        raise ValueError(f"device must name 1 to {_MOST} devices, not {len(device)}")
    contexts = [context_for(each) for each in device]
    for number, context in enumerate(contexts):
        if context in contexts[:number]:
            raise ValueError(
                f"device names {context.adapter_summary} twice: each device holds one share of the "
                f"rows; wgpu_q4.request_device() makes another device of an adapter"
            )
    return contexts


def upload(weight: Q4Weight, device: Any) -> None:
    """Bring a weight to a device, or its rows to several, as far as the first call does.

    Raises:
        DeviceError: it is too large.
    """
    contexts = contexts_for(device)
    if is_several(device):
        for share in shares_of(weight, device):
            context_for(share.device).weight(share.weight)
    else:
        contexts[0].weight(weight)


_shares: WeakKeyDictionary[Q4Weight, dict[int, list[tuple[range, Q4Weight]]]] = WeakKeyDictionary()
"""Of each weight, its shares by how many devices there are."""


def shares_of(weight: Q4Weight, devices: Sequence[Any]) -> list[Share]:
    """Return the shares of a weight, of devices that hold any.

    Raises:
        TypeError, ValueError, DeviceError: as `contexts_for` raises.
    """
    contexts_for(devices)
    known = _shares.setdefault(weight, {})
    made = known.get(len(devices))
    if made is None:
        made = known[len(devices)] = [
            (rows, _rows_of(weight, rows))
            for rows in share_out(weight.shape[0], len(devices))
            if rows
        ]
    return [Share(device, *share) for device, share in zip(devices, made, strict=False)]


def _rows_of(weight: Q4Weight, rows: range) -> Q4Weight:
    """Return rows of a weight on the same memory; their device copies count as those of both."""
    own = slice(rows.start, rows.stop)
    packed, scales = weight.packed[own], weight.unchecked_scales[own]
    part = Q4Weight(packed, scales, weight.convention, read_scales=False)
    part.residents = weight.residents
    return part


def on_each(shares: Sequence[Share], work: Callable[[Share], ResultT]) -> list[ResultT]:
    """Return ``work(share)`` of each share, computed at the same time, once all are done.

    Raises:
        Exception: the first one that ``work`` raised.
    """
    first, *others = shares
    futures = [_begun(work, share) for share in others]
    try:
        done = [work(first)]
    finally:
        wait([future for future in futures if future is not None])
    for share, future in zip(others, futures, strict=True):
        done.append(work(share) if future is None else future.result())
    return done


def _begun(work: Callable[[Share], ResultT], share: Share) -> Future[ResultT] | None:
    """Begin ``work(share)`` in another thread; None if the interpreter ends and starts none."""
    try:
        return _threads.submit(copy_context().run, work, share)
    except RuntimeError:
        return None
