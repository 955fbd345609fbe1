"""numpy in, numpy out; torch in, torch out.

torch is never imported here: a torch tensor can only be in somebody's hands if torch is already in
``sys.modules``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    ArrayLike: TypeAlias = NDArray[Any] | torch.Tensor
else:
    ArrayLike: TypeAlias = Any


def is_torch(array: object) -> bool:
    """Whether ``array`` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: object, name: str) -> NDArray[Any]:
    """``array`` as numpy, without a copy where the memory can be shared.

    bfloat16, which numpy lacks, becomes float32 (exact).  A tensor on a CUDA or MPS device is
    copied to the host.

    Raises:
        TypeError: neither a numpy array nor a torch tensor, or a masked array; names the
            argument.
    """
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
    raise TypeError(f"{name} must be a numpy array or a torch tensor, not {type(array).__name__}")


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
    """``result`` in the kind of ``source``: a tensor on its device if it is one, else numpy.

    The dtype stays that of ``result``; memory is shared where ``source`` lives on the CPU.
    """
    if not is_torch(source):
        return result
    tensor: Any = source
    return sys.modules["torch"].from_numpy(result).to(tensor.device)


def like_floats(result: NDArray[np.float32], source: Any) -> Any:
    """The same, and in the dtype of ``source``."""
    if is_torch(source):
        return like(result, source).to(source.dtype)
    if source.dtype == result.dtype:
        return result
    with np.errstate(over="ignore"):  # what is beyond float16 is infinite there, as in any cast
        return result.astype(source.dtype, copy=False)
