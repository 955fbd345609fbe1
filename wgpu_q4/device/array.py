"""`DeviceArray`: an array that stays on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from wgpu_q4.arrays import ARRAY_DTYPES, ArrayLike, DTypeLike, kept_dtype, one_dtype
from wgpu_q4.device.context import Context, context_for
from wgpu_q4.device.implementation import device_of
from wgpu_q4.device.storage import Storage, download_from, upload_to, watch
from wgpu_q4.errors import DeviceError, DeviceLimitError

if TYPE_CHECKING:
    import torch

_ALIGNMENT = "min-storage-buffer-offset-alignment"


class DeviceArray:
    """An array in a buffer of a device: what the ops take and return without the host.

    `wgpu_q4.to_device` makes one, as does every op that is given one.  It belongs to its holder:
    no later call writes to it unless it is told to, and its buffer goes when the last array and the
    last recording that use it go.  ``np.asarray(array)``, `numpy` and `torch` bring it to the host.
    An array whose buffer is destroyed counts as freed.

    Attributes:
        storage: the buffer, and what else is kept with it.
        shape: the lengths of the dimensions; the elements lie in C order.
        dtype: numpy's float32, float16, int32 or uint32.
        offset: bytes of the buffer before the first element.
    """

    def __init__(
        self, storage: Storage, shape: tuple[int, ...], dtype: str, offset: int = 0
    ) -> None:
        """Use `wgpu_q4.to_device`, `empty` or `wrap`: they check what they are given."""
        self.storage = storage
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.offset = offset

    @classmethod
    def empty(
        cls, shape: int | Sequence[int], dtype: DTypeLike = "float32", device: Any = None
    ) -> DeviceArray:
        """Return an array of zeros, for a kernel of yours or the ``out=`` of an op to fill.

        Args:
            shape: the lengths of the dimensions.
            dtype: float32, float16, int32 or uint32, as numpy or torch write it.
            device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.

        Raises:
            TypeError, ValueError: no such shape or dtype.
            DeviceLimitError: more bytes than a binding may have.
            DeviceError: no adapter, or the device has not so much memory left.
        """
        lengths, known = _check_shape(shape), one_dtype("dtype", dtype, ARRAY_DTYPES)
        context = context_for(device)
        with context.lock, context.guard, context.guard.busy:
            return empty_array(context, lengths, known)

    @classmethod
    def wrap(
        cls,
        buffer: Any,
        shape: int | Sequence[int],
        dtype: DTypeLike = "float32",
        *,
        offset: int = 0,
        device: Any = None,
    ) -> DeviceArray:
        """Return an array that lies in a buffer of yours.

        The array holds the buffer, and never destroys it.  If you do, the array counts as freed.

        Args:
            buffer: a ``GPUBuffer`` with the usage ``STORAGE``; also ``COPY_SRC`` if the host is to
                read the array, and ``COPY_DST`` if it is to write it.
            shape: the lengths of the dimensions; the elements lie in C order.
            dtype: float32, float16, int32 or uint32, as numpy or torch write it.
            offset: bytes before the first element, a multiple of the device's limit
                ``min-storage-buffer-offset-alignment`` (256 or less).  An array takes whole words
                of 4 bytes: two more bytes after an odd number of float16.
            device: the device that the buffer must be on; None for whichever it is on.

        Raises:
            TypeError: not a buffer, or no such shape.
            ValueError: no such dtype, or a usage, an offset or a size that does not fit.
            DeviceError: the buffer is on another device.
            DeviceLimitError: more bytes than a binding may have.
        """
        lengths, known = _check_shape(shape), one_dtype("dtype", dtype, ARRAY_DTYPES)
        owner = device_of(buffer)
        if owner is None or not hasattr(buffer, "map_state"):
            raise TypeError(f"buffer must be a GPUBuffer, not {type(buffer).__name__}")
        context = context_for(owner)
        if device is not None and context_for(device) is not context:
            raise DeviceError(
                f"buffer is on another device than the one given, on {context.adapter_summary}: "
                f"an array lies in a buffer of its own device"
            )
        array = cls(Storage(context, buffer), lengths, known, offset)
        _check_place(array, context)
        watch(array.storage)
        return array

    @property
    def device(self) -> Any:
        """The ``GPUDevice``."""
        return self.storage.context.device

    @property
    def buffer(self) -> Any:
        """The ``GPUBuffer``, in which the array begins at `offset`.

        Raises:
            DeviceError: the array was freed.
        """
        return self.storage.buffer

    @property
    def binding(self) -> dict[str, Any]:
        """The ``resource`` of an entry of ``create_bind_group``: buffer, offset and size.

        Raises:
            DeviceError: the array was freed.
        """
        return {"buffer": self.buffer, "offset": self.offset, "size": self.padded_nbytes}

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize

    @property
    def padded_nbytes(self) -> int:
        """Bytes of the 4-byte words that the array takes, at least one."""
        return max(4, self.nbytes + -self.nbytes % 4)

    def reshape(self, *shape: int | Sequence[int]) -> DeviceArray:
        """Return an array of another shape in the same buffer; one length may be −1.

        Raises:
            TypeError: a length that is no integer.
            ValueError: the numbers of elements differ.
        """
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        lengths = [index(length) for length in given]  # type: ignore[arg-type]
        if lengths.count(-1) == 1:
            others = -math.prod(lengths)
            lengths[lengths.index(-1)] = self.size // others if others else 0
        if math.prod(lengths) != self.size or min(lengths, default=0) < 0:
            raise ValueError(f"an array of shape {list(self.shape)} has no shape {lengths}")
        return DeviceArray(self.storage, tuple(lengths), self.dtype.name, self.offset)

    def write(self, values: ArrayLike) -> None:
        """Queue values for the array; work that is submitted later finds them there.

        Args:
            values: of the shape of the array and its dtype, or integers that fit into it.

        Raises:
            TypeError: another dtype.
            ValueError: another shape, or integers that do not fit.
            DeviceError: the array was freed, its buffer lacks the usage ``COPY_DST``, or the device
                is lost.
        """
        data = kept_dtype(values, "values", self.dtype)
        if data.dtype != self.dtype:
            raise TypeError(f"values must be {self.dtype}, as the array is, not {data.dtype}")
        if data.shape != self.shape:
            raise ValueError(
                f"values must have shape {list(self.shape)}, as the array does, "
                f"not {list(data.shape)}"
            )
        context = context_for(self.device)
        self.storage.check_usage("COPY_DST", "written by the host")
        with context.lock, context.guard, context.guard.busy:
            upload_to(self.storage, self.offset, data)
            self.storage.pending = None

    def numpy(self) -> NDArray[Any]:
        """Return the array on the host, when the device has computed it.

        Raises:
            DeviceError: the array was freed or is not computed yet, its buffer lacks the usage
                ``COPY_SRC``, or the device is lost.
        """
        out = np.empty(self.shape, self.dtype)
        context = context_for(self.device)
        self.storage.check_computed()
        self.storage.check_usage("COPY_SRC", "read by the host")
        if out.size:
            with context.lock, context.guard, context.guard.busy:
                download_from(self.storage, self.offset, out)
        return out

    def torch(self) -> torch.Tensor:
        """Return the array as a torch tensor on the CPU; see `numpy`."""
        import torch

        return torch.from_numpy(self.numpy())

    def __array__(
        self, dtype: npt.DTypeLike | None = None, *, copy: bool | None = None
    ) -> NDArray[Any]:
        """Return what numpy makes of the array; see `numpy`.

        ``copy`` is by keyword alone, as numpy passes it, so that this is no `HostArray` to a type
        checker.

        Raises:
            ValueError: ``copy`` is False.
            DeviceError: as for `numpy`.
        """
        if copy is False:
            raise ValueError(
                "a DeviceArray lies on a device, and numpy gets a copy of it: leave copy out"
            )
        return self.numpy().astype(self.dtype if dtype is None else dtype, copy=False)

    def wait(self) -> DeviceArray:
        """Return the array, when the device has done all that was submitted to it.

        Raises:
            DeviceError: the array was freed or is not computed yet, or the device is lost.
        """
        context = context_for(self.device)
        self.storage.check_computed()
        with context.lock, context.guard, context.guard.busy:
            context.round_trip.wait()
            if context.guard.is_lost:  # its queue is empty, too
                raise DeviceError("the device did not finish its work")
        return self

    def free(self) -> None:
        """Let go of the buffer now instead of with the object.

        Arrays in the same buffer (see `reshape`) are freed with it, and recordings that use it run
        no more.
        """
        with self.storage.context.lock:
            self.storage.free()

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a DeviceArray cannot be pickled or copied by Python: it lies on a device. Use "
            "array.numpy(), or wgpu_q4.to_device(array.numpy()) for a copy there"
        )

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a device array without dimensions")
        return self.shape[0]

    def __repr__(self) -> str:
        where = "freed" if self.storage.is_freed else self.storage.context.adapter_summary
        return f"DeviceArray({list(self.shape)}, {self.dtype}, {where})"


def to_device(array: ArrayLike, device: Any = None) -> DeviceArray:
    """Return ``array`` as a `DeviceArray`, its values queued for the device.

    Args:
        array: numpy, torch, numbers or lists of them.  float32, float16, int32 and uint32 stay as
            they are; other integers become int32, bfloat16 and Python's floats float32.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.

    Raises:
        TypeError: not an array, or of another dtype.
        ValueError: integers outside of int32.
        DeviceLimitError: more bytes than a binding of the device may have.
        DeviceError: no adapter, or the device has not so much memory left.
    """
    data = kept_dtype(array, "array")
    context = context_for(device)
    with context.lock, context.guard, context.guard.busy:
        made = empty_array(context, data.shape, data.dtype.name)
        upload_to(made.storage, 0, data)
    return made


def empty_array(context: Context, shape: tuple[int, ...], dtype: str) -> DeviceArray:
    """Return an array of zeros in a buffer of its own; hold the context's lock and guard.

    Raises:
        DeviceLimitError: more bytes than a binding may have.
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    _check_binding(context, shape, dtype, nbytes)
    buffer = context.create_buffer(
        "wgpu_q4 array", max(4, nbytes + -nbytes % 4), "STORAGE", "COPY_SRC", "COPY_DST"
    )
    array = DeviceArray(Storage(context, buffer), shape, dtype)
    watch(array.storage, is_of_package=True)
    return array


def _check_shape(shape: object) -> tuple[int, ...]:
    given = shape if isinstance(shape, (tuple, list)) else (shape,)
    try:
        lengths = tuple(map(index, given))
    except TypeError:
        raise TypeError(f"shape must be lengths of dimensions, not {shape!r}") from None
    if min(lengths, default=0) < 0:
        raise ValueError(f"shape must have no negative length, and is {list(lengths)}")
    return lengths


def _check_binding(context: Context, shape: Sequence[int], dtype: str, nbytes: int) -> None:
    if nbytes > context.largest_binding:
        raise DeviceLimitError(
            f"a device array {list(shape)} of {dtype} takes {nbytes:,} bytes in one binding; "
            f"{context.adapter_summary} allows {context.largest_binding:,}. Work on fewer rows at "
            f"a time"
        )


def _check_place(array: DeviceArray, context: Context) -> None:
    """Raise unless a wrapped array lies where kernels can read and write it."""
    buffer, offset = array.buffer, index(array.offset)
    _check_binding(context, array.shape, array.dtype.name, array.nbytes)
    if not buffer.usage & context.usage("STORAGE"):
        raise ValueError("buffer must have the usage STORAGE: kernels bind it")
    alignment = context.limits[_ALIGNMENT]
    if offset < 0 or offset % alignment:
        raise ValueError(f"offset must be a multiple of {alignment} on this device, not {offset}")
    if offset + array.padded_nbytes > buffer.size:
        raise ValueError(
            f"an array {list(array.shape)} of {array.dtype} takes {array.padded_nbytes:,} bytes "
            f"from {offset:,} on, and buffer has {buffer.size:,}"
        )
