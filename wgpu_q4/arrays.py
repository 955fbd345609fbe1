"""Which arrays and dtypes the package takes, and how a result becomes the caller's kind of array.

numpy in, numpy out; torch in, torch out; Python numbers and lists of them in, numpy out.  Every
argument of every op passes through `to_numpy`, every dtype through `float_dtype`, and every result
through `like` or `like_floats`: another kind of array would be added here and nowhere else.

torch is never imported here: a caller can only hold a torch tensor if torch is in ``sys.modules``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

FloatDtype = Literal["float32", "float16"]
"""The dtype of scales, and of the rows that `wgpu_q4.embedding` returns."""

FLOAT_DTYPES: tuple[FloatDtype, ...] = get_args(FloatDtype)

if TYPE_CHECKING:
    import torch

    HostArray: TypeAlias = NDArray[Any] | np.generic | int | float | list[Any] | tuple[Any, ...]
    """What numpy and Python call an array: the result is a numpy array."""

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

    bfloat16, which numpy lacks, becomes float32 (exact).  A tensor on a CUDA or MPS device is
    copied to the host.  Python's numbers have no size: floats become float32, integers int64.

    Args:
        array: a numpy array, a torch tensor, a number, or a list or tuple of numbers.
        name: the argument, for the error message.

    Raises:
        TypeError: something else, a masked array, or a list that is not a rectangle of numbers.
    """
    if type(array) is np.ndarray:
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill it first, with {name}.filled(value)")
    if isinstance(array, (np.ndarray, np.generic)):
        return np.asarray(array)  # of a subclass, the plain array
    if is_torch(array):
        tensor: Any = array
        torch = sys.modules["torch"]
        tensor = tensor.detach().cpu()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        return np.asarray(tensor.numpy())
    if isinstance(array, (int, float, list, tuple)):
        return _of_numbers(array, name)
    raise TypeError(
        f"{name} must be a numpy array, a torch tensor or a list of numbers, "
        f"not {type(array).__name__}"
    )


def _of_numbers(numbers: object, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(numbers)
    except Exception as error:  # whatever an object in the list raises when numpy asks it
        raise TypeError(f"{name} is no rectangle of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold integers or floats, not {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def refuse_gradient(array: object, name: str) -> None:
    """Raise if torch would expect a gradient through ``array``; the ops have none.

    Raises:
        RuntimeError: gradients are enabled and ``array`` asks for one.
    """
    if is_torch(array):
        tensor: Any = array
        if tensor.requires_grad and sys.modules["torch"].is_grad_enabled():
            raise RuntimeError(
                f"{name} asks for a gradient, and no gradient passes a 4-bit matrix: call this "
                f"under torch.no_grad() or torch.inference_mode(), or pass {name}.detach()"
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

    Python's floats count as float32.
    """
    if is_torch(source):
        return like(result, source).to(source.dtype)
    dtype = getattr(source, "dtype", result.dtype)
    if dtype == result.dtype:
        return result
    with np.errstate(over="ignore"):  # what is beyond float16 is infinite there, as in any cast
        return result.astype(dtype, copy=False)
