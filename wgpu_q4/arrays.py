"""Which arrays and dtypes the package takes, and how a result becomes the caller's kind of array.

torch in, torch out; numpy out for all else: numpy arrays, Python numbers and lists of them, and
whatever numpy can read (``__array__``, a buffer) or the host can share (``__dlpack__``), as the
arrays of pandas, JAX, CuPy and MLX.  Every argument of every op passes through `to_numpy`, every
dtype through `float_dtype`, and every result through `like` or `like_floats`: another kind of array
would be added here and nowhere else.

No library of arrays is imported here: a caller can only hold a torch tensor if torch is in
``sys.modules``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

FloatDtype = Literal["float32", "float16"]
"""The dtype of scales, and of the rows that `wgpu_q4.embedding` returns."""

FLOAT_DTYPES: tuple[FloatDtype, ...] = get_args(FloatDtype)

ArrayDtype = Literal["float32", "float16", "int32", "uint32"]
"""The dtype of a device array."""

ARRAY_DTYPES: tuple[ArrayDtype, ...] = get_args(ArrayDtype)

if TYPE_CHECKING:
    import torch

    class SupportsArray(Protocol):
        """What numpy reads by asking, with numpy 2's arguments (pandas and JAX have them)."""

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...

    HostArray: TypeAlias = (
        NDArray[Any] | np.generic | int | float | list[Any] | tuple[Any, ...] | SupportsArray
    )
    """What is an array without being torch's: the result is a numpy array."""

    ArrayLike: TypeAlias = HostArray | torch.Tensor
    """What an op takes."""

    DTypeLike: TypeAlias = npt.DTypeLike | torch.dtype
    """What numpy or torch call a dtype."""
else:
    HostArray = ArrayLike = DTypeLike = Any

NameT = TypeVar("NameT", bound=str)


def float_dtype(name: str, value: object, error: type[ValueError] = ValueError) -> FloatDtype:
    """Return ``"float32"`` or ``"float16"`` for anything that numpy or torch take for one of them.

    ``np.float16``, ``np.dtype("float16")``, ``torch.float16``, ``jnp.float16``, ``"float16"`` and
    ``"half"`` are all ``"float16"``.

    Args:
        name: the argument, for the error message.
        value: the dtype.
        error: what to raise.

    Raises:
        ValueError: another dtype, or one in a foreign byte order.
    """
    if value is FLOAT_DTYPES[0]:  # the default of `wgpu_q4.embedding`, and so of most calls
        return FLOAT_DTYPES[0]
    return one_dtype(name, value, FLOAT_DTYPES, error)


def one_dtype(
    name: str, value: object, allowed: tuple[NameT, ...], error: type[ValueError] = ValueError
) -> NameT:
    """Return the one of ``allowed``, names of dtypes, that ``value`` stands for; see `float_dtype`.

    Raises:
        ValueError: it stands for none of them.
    """
    found = _dtype_name(value)
    for known in allowed:
        if found == known:
            return known
    raise error(f"{name} must be one of {', '.join(allowed)}, not {_shown(value)}")


def _dtype_name(value: object) -> str | None:
    """Return the name of a dtype in native byte order; None if ``value`` is no such dtype."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if value is None:
        return None  # numpy takes it for float64
    try:
        dtype = np.dtype(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        # numpy knows "bfloat16" only when ml_dtypes is imported, and "torch.float16" never.
        return value.removeprefix("torch.") if isinstance(value, str) else None
    return dtype.name if dtype.isnative else None


def _shown(value: object) -> str:
    return str(value) if isinstance(value, np.dtype) else repr(value)


def is_torch(array: object) -> bool:
    """Return True if ``array`` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: object, name: str) -> NDArray[Any]:
    """Return ``array`` as a numpy array, without a copy where the memory can be shared.

    bfloat16 and the 8-bit floats, which numpy lacks, become float32 (exact), whether they are
    torch's or ml_dtypes'.  An array on another device is copied to the host.  Python's numbers have
    no size: floats become float32, integers int64.

    Args:
        array: a numpy array, a torch tensor, a number, a list or another sequence of numbers, or
            anything with ``__array__``, ``__dlpack__`` or a buffer.
        name: the argument, for the error message.

    Raises:
        TypeError: something else, a masked array, a list that is not a rectangle of numbers, or a
            tensor without values of its own (meta, sparse, fake, vmapped, …).
    """
    if type(array) is np.ndarray:
        return array if array.dtype.isbuiltin == 1 else _widened(array)
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill it first, with {name}.filled(value)")
    if isinstance(array, (np.ndarray, np.generic)):
        return _widened(np.asarray(array))  # of a subclass, the plain array
    if is_torch(array):
        return _of_tensor(array, name)
    if isinstance(array, (int, float, list, tuple)):
        return _of_numbers(array, name)
    if any(hasattr(array, way) for way in ("__array__", "__dlpack__")):
        return _widened(_of_foreign(array, name))
    if isinstance(array, Sequence) and not isinstance(array, (str, bytes)):
        return _of_numbers(array, name)  # a range, an array.array
    raise TypeError(
        f"{name} must be a numpy array, a torch tensor, a list of numbers, or an array with "
        f"__array__ or __dlpack__, not {type(array).__name__}"
    )


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    """Return ``array``, as float32 if it holds floats that numpy lacks: float32 has them all."""
    return array.astype(np.float32) if _is_short_float(array.dtype.name) else array


def _is_short_float(dtype: str) -> bool:
    """Tell if a dtype of this name, ml_dtypes' or torch's, has 8 bits, or is bfloat16."""
    return dtype == "bfloat16" or (dtype.startswith("float8_") and not dtype.endswith("_x2"))


_DEVICES: tuple[Literal["cpu"] | None, ...] = (None, "cpu")
"""What `numpy.from_dlpack` asks for: the array where it is, then a copy on the host."""


def _of_foreign(array: Any, name: str) -> NDArray[Any]:
    """Return the array of another library: by ``__array__``, else by ``__dlpack__``.

    Of a device's array one of them, or both, may refuse: CuPy's ``__array__`` always does.
    """
    reasons: list[str] = []
    if hasattr(array, "__array__"):
        try:
            found = np.asarray(array)
            if found.dtype != object:
                return found
            reasons.append("__array__ gave objects")
        except Exception as error:  # whatever the library raises
            reasons.append(f"__array__: {_first_line(error)}")
    if hasattr(array, "__dlpack__"):
        for device in _DEVICES:
            try:
                return np.from_dlpack(array, device=device)
            except Exception as error:
                reasons.append(f"__dlpack__: {_first_line(error)}")
    raise TypeError(
        f"{name}, a {type(array).__name__}, holds no numbers that numpy can read "
        f"({'; '.join(dict.fromkeys(reasons))}): convert it to float32, or to a numpy array, first"
    )


def _first_line(error: Exception) -> str:
    return f"{error}".partition("\n")[0]


def _of_tensor(tensor: Any, name: str) -> NDArray[Any]:
    try:
        # Both bits stand for a sign that is not applied yet; of other tensors nothing is copied.
        held = tensor.detach().cpu().resolve_conj().resolve_neg()
        if _is_short_float(str(held.dtype).removeprefix("torch.")):
            held = held.float()
        return np.asarray(held.numpy())
    except (TypeError, RuntimeError, ValueError) as error:
        kind, remedy = _unusual(tensor)
        raise TypeError(f"{name} is {kind}: {remedy}") from error


def _unusual(tensor: Any) -> tuple[str, str]:
    """Return which kind of tensor has no numpy array, and what its owner can do."""
    torch = sys.modules["torch"]
    kind = type(tensor).__name__
    if tensor.is_meta:
        return "on torch's meta device, without values", "load the model's weights first"
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return (
            "inside of torch.func (vmap, grad, jvp), where a tensor has no values of its own",
            "call this outside of it; vmap is not needed, as every op takes leading dimensions; "
            "torch.autograd.grad computes gradients through the modules of wgpu_q4.nn",
        )
    if kind in ("FakeTensor", "FunctionalTensor"):
        return (
            f"a {kind}, which stands for a tensor while a program is traced",
            "trace the modules of wgpu_q4.nn or the ops torch.ops.wgpu_q4, which have shapes "
            "without values",
        )
    if tensor.is_nested:
        return "a nested tensor", "pad it with .to_padded_tensor(0.0)"
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"a tensor of layout {layout}", "convert it with .to_dense()"
    if tensor.is_quantized:
        return f"quantized, of {tensor.dtype}", "convert it with .dequantize()"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        ways = [way for way in ("dequantize", "full_tensor") if hasattr(type(tensor), way)]
        way = f".{ways[-1]}()" if ways else "its own method that gives a plain torch.Tensor"
        return f"a {kind}, a tensor subclass that numpy cannot read", f"convert it with {way}"
    return f"a tensor of {tensor.dtype}", "convert it to a dtype that numpy has"


def _of_numbers(numbers: object, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(numbers)
    except Exception as error:  # whatever an object in the list raises when numpy asks it
        raise TypeError(f"{name} is no rectangle of numbers: {error}") from error
    array = _widened(array)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold integers or floats, not {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def kept_dtype(array: object, name: str, wanted: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Return ``array`` in the dtype in which a device keeps it.

    float32, float16, int32 and uint32 stay as they are.  Other integers become int32, bfloat16 and
    Python's floats float32.

    Args:
        array: as for `to_numpy`.
        name: the argument, for the error message.
        wanted: the dtype to which integers, and lists without numbers, are brought instead.

    Raises:
        TypeError: not an array, or of another dtype; the message says how to convert it.
        ValueError: integers that do not fit.
    """
    data = to_numpy(array, name)
    if not data.size and isinstance(array, (list, tuple)):  # [] says no dtype
        return data.astype(np.float32 if wanted is None else wanted)
    if data.dtype.kind in "iu":
        integers = np.dtype(np.int32)
        if wanted is not None and wanted.kind in "iu":
            integers = wanted
        elif data.dtype == np.uint32:
            return data
        least, most = np.iinfo(integers).min, np.iinfo(integers).max
        if data.size and (int(data.min()) < least or int(data.max()) > most):
            raise ValueError(f"{name} must hold integers in {least}..{most}, those of {integers}")
        return data.astype(integers, copy=False)
    if data.dtype.name not in ARRAY_DTYPES or not data.dtype.isnative:
        cast = ".float()" if is_torch(array) else ".astype(np.float32)"
        hint = f": convert with {cast}" if data.dtype.kind == "f" else ""
        raise TypeError(f"{name} must be float32, float16 or integers, not {data.dtype}{hint}")
    return data


def refuse_gradient(array: object, name: str) -> None:
    """Raise if torch would expect a gradient through ``array``; the ops have none.

    Raises:
        RuntimeError: gradients are enabled and ``array`` asks for one.
    """
    if is_torch(array):
        tensor: Any = array
        torch = sys.modules["torch"]
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return  # has no values either, which is refused when they are read
        if tensor.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{name} asks for a gradient, which this function does not compute: use a module "
                f"of wgpu_q4.nn, or call this under torch.no_grad() or torch.inference_mode(), or "
                f"pass {name}.detach()"
            )


def like(result: NDArray[Any], source: object) -> Any:
    """Return ``result`` as the kind of array that ``source`` is, in the dtype of ``result``.

    For a torch tensor that is a tensor on the same device, which shares the memory of ``result`` if
    that device is the CPU; for everything else it is ``result`` itself.
    """
    if not is_torch(source):
        return result
    tensor: Any = source
    return sys.modules["torch"].from_numpy(result).to(tensor.device)


def like_floats(result: NDArray[np.float32], source: Any) -> Any:
    """Return ``result`` as the kind of array that ``source`` is, in the dtype of ``source``.

    Python's floats count as float32, and so do arrays that do not tell numpy's dtype.
    """
    if is_torch(source):
        return like(result, source).to(source.dtype)
    dtype = getattr(source, "dtype", result.dtype)
    if dtype == result.dtype:
        return result
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        return result
    with np.errstate(over="ignore"):  # what is beyond float16 is infinite there, as in any cast
        return result.astype(dtype, copy=False)
