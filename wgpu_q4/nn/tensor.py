"""`Q4Tensor`: what a module's ``weight`` is, a 4-bit matrix with the manners of a tensor.

Code around a model reads ``weight.dtype``, ``.device`` and ``.shape``, multiplies with
``weight.t()``, indexes it, or hands it to ``F.linear`` and ``F.embedding``.  Products run the
kernels, and gradients pass them; rows are dequantized as they are asked for; anything else gets the
dequantized matrix.  Only a change in place is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

import wgpu_q4.torch_ops  # noqa: F401  registers the ops
from wgpu_q4.torch_cache import resident_weight
from wgpu_q4.weight import Q4Weight

_ATEN, _OPS = torch.ops.aten, torch.ops.wgpu_q4


_CHANGES = (
    "would change a 4-bit matrix in place, which cannot be: change the float matrix before tie (an "
    "adapter on it: merge_and_unload() before tie, or unload()), or change weight.dequantize()"
)


class Q4Tensor(Tensor):
    """A ``[V, K]`` matrix of `dtype`, held as packed bytes and scales; it never changes.

    Attributes:
        packed: uint8 ``[V, K/2]``, linear convention.
        scales: ``[V, K/G]``.
        is_transposed: True for ``weight.t()``, which is ``[K, V]``.
    """

    packed: Tensor
    scales: Tensor
    is_transposed: bool

    @staticmethod
    def __new__(
        cls: type[Q4Tensor],
        packed: Tensor,
        scales: Tensor,
        dtype: torch.dtype,
        device: torch.device,
        is_transposed: bool = False,
    ) -> Q4Tensor:
        vocab, embed_dim = packed.shape[0], packed.shape[1] * 2
        size, strides = (vocab, embed_dim), (embed_dim, 1)
        if is_transposed:
            size, strides = size[::-1], strides[::-1]
        make: Any = Tensor._make_wrapper_subclass
        made: Q4Tensor = make(cls, size, strides=strides, dtype=dtype, device=device)
        made.packed, made.scales, made.is_transposed = packed, scales, is_transposed
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an op of torch: by the table, by what the op is made of, or on the whole matrix."""
        kwargs = kwargs or {}
        if not torch.is_inference_mode_enabled():
            return _run(func, args, kwargs)
        # torch takes the results of slices and the like for views, which in inference mode must be
        # of the kind of what they view.
        with torch.inference_mode(all(map(torch.is_inference, filter(_is_own, args)))):
            return _run(func, args, kwargs)

    @property
    def group_size(self) -> int:
        """``G``."""
        return self.packed.shape[1] * 2 // self.scales.shape[1]

    @property
    def q4weight(self) -> Q4Weight:
        """The matrix as the ops of `wgpu_q4` take it."""
        return resident_weight(self.packed, self.scales, "linear", transposed=False)

    def dequantize(self) -> Tensor:
        """Return the whole matrix as a plain tensor: V · K values of `dtype`."""
        whole = _rows(self, slice(None))
        return whole.t() if self.is_transposed else whole

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """Return the whole matrix, dequantized, as numpy has it."""
        return self.dequantize().numpy(force=force)

    def tolist(self) -> Any:
        """Return the whole matrix, dequantized, as lists."""
        return self.dequantize().tolist()

    def __array__(self, dtype: npt.DTypeLike | None = None) -> NDArray[Any]:
        """Return what numpy makes of the tensor: the matrix, dequantized."""
        return np.asarray(self.numpy(), dtype)

    @property  # type: ignore[override]
    def data(self) -> Q4Tensor:
        """The tensor itself, as torch has it: without gradients."""
        return _like(self)

    @data.setter
    def data(self, value: Any) -> None:
        # torch would take the values and lose them: ``weight.data += delta`` ends here.
        raise TypeError(f"an assignment to weight.data {_CHANGES}")

    def __setitem__(self, *_: Any) -> None:
        # torch would write into rows that were dequantized for it, and lose them.
        raise TypeError(f"an assignment to rows of weight {_CHANGES}")

    def requires_grad_(self, requires_grad: bool = True) -> Q4Tensor:
        """Return the tensor itself if no gradient is asked for.

        Raises:
            TypeError: a gradient is asked for, which the modules never give.
        """
        if requires_grad:
            raise TypeError(
                "a 4-bit matrix is frozen and has no gradient: train an adapter on it (peft's LoRA "
                "with its modules in target_modules), or the float matrix before tie"
            )
        return self

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        of = "transposed " if self.is_transposed else ""
        return f"Q4Tensor({of}{list(self.shape)}, group_size={self.group_size}, dtype={self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Q4Tensor:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        state = self.packed, self.scales, self.dtype, self.device, self.is_transposed
        return Q4Tensor, state

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["packed", "scales"], (self.dtype, self.device, self.is_transposed)

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], context: Any, outer_size: Any, outer_stride: Any
    ) -> Q4Tensor:
        return Q4Tensor(inner["packed"], inner["scales"], *context)


def _is_own(given: Any) -> bool:
    return isinstance(given, Q4Tensor)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    own = _TABLE.get(func)
    if own is not None:
        result = own(*args, **kwargs)
        if result is not NotImplemented:
            return result
    if func._schema.is_mutable and any(map(_is_own, args[:1])):
        raise TypeError(f"{func} {_CHANGES}")
    result = func.decompose(*args, **kwargs)
    if result is not NotImplemented:
        return result
    whole, named = tree_map(_dequantized, (args, kwargs))
    return func(*whole, **named)


def _like(
    of: Q4Tensor,
    dtype: torch.dtype | None = None,
    device: Any = None,
    *,
    turned: bool = False,
) -> Q4Tensor:
    """Return the same matrix in another dtype, for another device, or transposed."""
    return Q4Tensor(
        of.packed,
        of.scales,
        dtype or of.dtype,
        torch.device(device) if device is not None else of.device,
        of.is_transposed != turned,
    )


def _dequantized(given: Any) -> Any:
    return given.dequantize() if isinstance(given, Q4Tensor) else given


def _rows(of: Q4Tensor, index: Any) -> Tensor:
    """Return the rows of an index: each product rounded to float32, then to the dtype."""
    packed, scales = of.packed[index], of.scales[index]
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)
    groups = (*scales.shape, of.group_size)
    values: Tensor = (nibbles.float() - 8).reshape(groups) * scales.float().unsqueeze(-1)
    return values.flatten(-2).to(of.dtype).to(of.device)


def _product(x: Tensor, weight: Q4Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ W.T + bias`` for a transposed weight, else ``x @ W``."""
    given = x.float() if x.dtype == torch.float64 else x
    by_group = weight.scales.t()
    result: Tensor
    if weight.is_transposed:
        added = None if bias is None else bias.to(given.dtype)
        result = _OPS.linear_q4gsw(given, weight.packed, by_group, weight.group_size, added)
    else:
        result = _OPS.linear_transposed_q4gsw(given, weight.packed, by_group, weight.group_size)
    return result.to(x.dtype)


def _mm(x: Any, weight: Any) -> Any:
    if isinstance(x, Q4Tensor) or not isinstance(weight, Q4Tensor):
        return NotImplemented
    return _product(x, weight)


def _addmm(bias: Any, x: Any, weight: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    plain = not isinstance(x, Q4Tensor) and not isinstance(bias, Q4Tensor)
    if not plain or not isinstance(weight, Q4Tensor):
        return NotImplemented
    if weight.is_transposed and (alpha, beta) == (1, 1) and bias.shape == (weight.shape[1],):
        return _product(x, weight, bias)
    return beta * bias + alpha * _product(x, weight)


def _embedding(weight: Any, ids: Any, *_: Any, **__: Any) -> Any:
    if not isinstance(weight, Q4Tensor) or weight.is_transposed:
        return NotImplemented
    rows: Tensor = _OPS.embedding_q4gsw(weight.packed, weight.scales, weight.group_size, ids, True)
    return rows.to(weight.dtype)


def _index(weight: Any, indices: Any) -> Any:
    if not isinstance(weight, Q4Tensor) or weight.is_transposed or len(indices) != 1:
        return NotImplemented
    return _rows(weight, indices[0].to(weight.packed.device))


def _index_select(weight: Any, dim: int, ids: Any) -> Any:
    return _index(weight, [ids]) if dim in (0, -2) else NotImplemented


def _select(weight: Any, dim: int, at: Any) -> Any:
    if not isinstance(weight, Q4Tensor) or weight.is_transposed or dim not in (0, -2):
        return NotImplemented
    return _rows(weight, at)


def _slice(weight: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    if not isinstance(weight, Q4Tensor) or weight.is_transposed or dim not in (0, -2):
        return NotImplemented
    return _rows(weight, slice(start, end, step))


def _turned(weight: Any, first: int = 0, second: int = 1) -> Any:
    return _like(weight, turned=(first - second) % 2 == 1)


def _permuted(weight: Any, dims: list[int]) -> Any:
    return _like(weight, turned=dims[0] % 2 == 1)


def _to_copy(weight: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Any:
    if dtype is not None and not dtype.is_floating_point:
        return NotImplemented
    return _like(weight, dtype, device)


_TABLE: dict[Any, Callable[..., Any]] = {
    _ATEN.detach.default: _like,
    _ATEN.alias.default: _like,
    _ATEN.clone.default: lambda weight, **_: _like(weight),
    _ATEN._to_copy.default: _to_copy,
    _ATEN.t.default: _turned,
    _ATEN.transpose.int: _turned,
    _ATEN.permute.default: _permuted,
    _ATEN.mm.default: _mm,
    _ATEN.addmm.default: _addmm,
    _ATEN.embedding.default: _embedding,
    _ATEN.index.Tensor: _index,
    _ATEN.index_select.default: _index_select,
    _ATEN.select.int: _select,
    _ATEN.slice.Tensor: _slice,
}
