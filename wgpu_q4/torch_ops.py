"""The ops as torch custom ops; the first two in the schemas that ExecuTorch's ``et_vk`` ops have.

    torch.ops.wgpu_q4.embedding_q4gsw(weight, weight_scales, group_size, indices, is_linear_weight)
    torch.ops.wgpu_q4.linear_q4gsw(x, weights, weight_scales, group_size, bias)
    torch.ops.wgpu_q4.linear_transposed_q4gsw(y, weights, weight_scales, group_size)

Importing this module registers them.  A custom op takes plain tensors, so ``torch.export`` and
``torch.compile`` pass through, dynamic shapes included; run eagerly, it runs the WGSL kernels on
the default device (see `wgpu_q4.embedding`).

The scales have the layout of the op that takes them: ``[V, K/G]`` for the embedding, transposed
``[K/G, V]`` for the products.  `resident_weight` finds out when the two hold the same numbers, so a
tied matrix is on the device once, packed bytes and scales, however many ops read it.

Gradients pass through the products to x and to the bias (`wgpu_q4.torch_gradients`).  The matrix
itself is frozen: nothing passes to it, and so nothing through the embedding.

``linear_q4gsw_on`` and its like are the same ops with an accuracy and a device of the caller's
choice.  Requires torch.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from wgpu_q4 import ops
from wgpu_q4.errors import FormatError
from wgpu_q4.format import Convention
from wgpu_q4.ops.several import is_several
from wgpu_q4.torch_cache import resident_weight

__all__ = ["device_key", "embedding_q4gsw", "linear_q4gsw", "linear_transposed_q4gsw"]

_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@torch.library.custom_op(
    "wgpu_q4::embedding_q4gsw",
    mutates_args=(),
    schema="(Tensor weight, Tensor weight_scales, int group_size, Tensor indices, "
    "bool is_linear_weight=False) -> Tensor",
)
def embedding_q4gsw(
    weight: Tensor,
    weight_scales: Tensor,
    group_size: int,
    indices: Tensor,
    is_linear_weight: bool = False,
) -> Tensor:
    """Return rows of a packed matrix, float32 ``indices.shape + (K,)``.

    Args:
        weight: uint8 ``[V, K/2]``, packed; must not change in place while it is in use.
        weight_scales: float16 or float32 ``[V, K/G]``.
        group_size: ``G``.
        indices: ids of any integer dtype and shape.
        is_linear_weight: True for the linear nibble convention, False for the embedding's.

    Raises:
        FormatError: shapes, dtypes or the group size do not fit each other.
        TypeError: ids that are not integers.
        IndexError: an id outside the vocabulary.
    """
    _check_embedding(weight, weight_scales, group_size, indices)
    convention: Convention = "linear" if is_linear_weight else "embedding"
    resident = resident_weight(weight, weight_scales, convention, transposed=False)
    rows: Tensor = ops.embedding(indices, resident)
    return rows


@embedding_q4gsw.register_fake
def _(
    weight: Tensor,
    weight_scales: Tensor,
    group_size: int,
    indices: Tensor,
    is_linear_weight: bool = False,
) -> Tensor:
    _check_embedding(weight, weight_scales, group_size, indices)
    return indices.new_empty((*indices.shape, weight.shape[1] * 2), dtype=torch.float32)


@torch.library.custom_op(
    "wgpu_q4::linear_q4gsw",
    mutates_args=(),
    schema="(Tensor self, Tensor weights, Tensor weight_scales, int group_size, "
    "Tensor? bias=None) -> Tensor",
)
def linear_q4gsw(
    self: Tensor,
    weights: Tensor,
    weight_scales: Tensor,
    group_size: int,
    bias: Tensor | None = None,
) -> Tensor:
    """Return ``x @ W.T + bias``, ``[..., V]`` in the dtype of ``x``, summed in float32.

    Args:
        self: ``x``, float16, bfloat16 or float32.
        weights: uint8 ``[V, K/2]``, linear convention; must not change in place while in use.
        weight_scales: float16 or float32 ``[K/G, V]``: transposed, as ExecuTorch's op has them.
        group_size: ``G``.
        bias: ``[V]`` or None.

    Raises:
        FormatError: shapes, dtypes or the group size do not fit each other.
    """
    _check_linear(self, weights, weight_scales, group_size, bias)
    resident = resident_weight(weights, weight_scales, "linear", transposed=True)
    given = self.detach(), resident, None if bias is None else bias.detach()
    result: Tensor = ops.linear(*given)
    return result


@linear_q4gsw.register_fake
def _(
    self: Tensor,
    weights: Tensor,
    weight_scales: Tensor,
    group_size: int,
    bias: Tensor | None = None,
) -> Tensor:
    _check_linear(self, weights, weight_scales, group_size, bias)
    return self.new_empty((*self.shape[:-1], weights.shape[0]))


@torch.library.custom_op(
    "wgpu_q4::linear_transposed_q4gsw",
    mutates_args=(),
    schema="(Tensor self, Tensor weights, Tensor weight_scales, int group_size, "
    "str device='') -> Tensor",
)
def linear_transposed_q4gsw(
    self: Tensor, weights: Tensor, weight_scales: Tensor, group_size: int, device: str = ""
) -> Tensor:
    """``y @ W``: ``[..., V]`` to ``[..., K]`` in the dtype of ``y``, summed in float32.

    Args:
        self: ``y``, float16, bfloat16 or float32.
        weights, weight_scales, group_size: as for ``linear_q4gsw``.
        device: from `device_key`; the default device if empty.

    Raises:
        FormatError: shapes, dtypes or the group size do not fit each other.
    """
    _check_transposed(self, weights, weight_scales, group_size)
    resident = resident_weight(weights, weight_scales, "linear", transposed=True)
    result: Tensor = ops.linear_transposed(self.detach(), resident, _device_of(device))
    return result


@linear_transposed_q4gsw.register_fake
def _(
    self: Tensor, weights: Tensor, weight_scales: Tensor, group_size: int, device: str = ""
) -> Tensor:
    _check_transposed(self, weights, weight_scales, group_size)
    return self.new_empty((*self.shape[:-1], weights.shape[1] * 2))


@torch.library.custom_op(
    "wgpu_q4::embedding_q4gsw_on",
    mutates_args=(),
    schema="(Tensor weight, Tensor weight_scales, int group_size, Tensor indices, str device) "
    "-> Tensor",
)
def embedding_q4gsw_on(
    weight: Tensor, weight_scales: Tensor, group_size: int, indices: Tensor, device: str
) -> Tensor:
    """Return what ``embedding_q4gsw`` does for a linear weight, on a device from `device_key`."""
    _check_embedding(weight, weight_scales, group_size, indices)
    resident = resident_weight(weight, weight_scales, "linear", transposed=False)
    rows: Tensor = ops.embedding(indices, resident, device=_device_of(device))
    return rows


@embedding_q4gsw_on.register_fake
def _(
    weight: Tensor, weight_scales: Tensor, group_size: int, indices: Tensor, device: str
) -> Tensor:
    _check_embedding(weight, weight_scales, group_size, indices)
    return indices.new_empty((*indices.shape, weight.shape[1] * 2), dtype=torch.float32)


@torch.library.custom_op(
    "wgpu_q4::linear_q4gsw_on",
    mutates_args=(),
    schema="(Tensor self, Tensor weights, Tensor weight_scales, int group_size, Tensor? bias, "
    "str accuracy, str device) -> Tensor",
)
def linear_q4gsw_on(
    self: Tensor,
    weights: Tensor,
    weight_scales: Tensor,
    group_size: int,
    bias: Tensor | None,
    accuracy: str,
    device: str,
) -> Tensor:
    """Return what ``linear_q4gsw`` does, in another accuracy or on a device from `device_key`."""
    _check_linear(self, weights, weight_scales, group_size, bias)
    resident = resident_weight(weights, weight_scales, "linear", transposed=True)
    asked: Any = accuracy
    given = self.detach(), resident, None if bias is None else bias.detach()
    result: Tensor = ops.linear(*given, _device_of(device), accuracy=asked)
    return result


@linear_q4gsw_on.register_fake
def _(
    self: Tensor,
    weights: Tensor,
    weight_scales: Tensor,
    group_size: int,
    bias: Tensor | None,
    accuracy: str,
    device: str,
) -> Tensor:
    _check_linear(self, weights, weight_scales, group_size, bias)
    return self.new_empty((*self.shape[:-1], weights.shape[0]))


_BETWEEN = "\n"
"""What stands between several devices."""

_devices: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The device objects that ops were given, by what stands for them in a graph."""


def device_key(device: Any) -> str:
    """Return the text that stands for a device in a graph: a custom op takes no objects.

    Args:
        device: as in `wgpu_q4.embedding`.  A graph with a ``GPUDevice`` works in this process.
    """
    if is_several(device):
        return _BETWEEN.join(map(device_key, device))
    if device is None or isinstance(device, str):
        return device or ""
    key = f"<device {id(device)}>"
    _devices[key] = device
    return key


def _device_of(key: str) -> Any:
    if _BETWEEN in key:
        return [_device_of(each) for each in key.split(_BETWEEN)]
    return _devices.get(key, key or None)


def _check_transposed(y: Tensor, weights: Tensor, weight_scales: Tensor, group_size: int) -> None:
    _check_matrix("weights", weights, weight_scales, group_size, transposed=True)
    if y.dtype not in _FLOATS:
        raise FormatError(f"self must be float16, bfloat16 or float32, not {y.dtype}")
    vocab = weights.shape[0]
    if y.ndim < 1 or y.shape[-1] != vocab:
        raise FormatError(f"self must have shape [..., {vocab}], not {list(y.shape)}")


def _check_embedding(
    weight: Tensor, weight_scales: Tensor, group_size: int, indices: Tensor
) -> None:
    _check_matrix("weight", weight, weight_scales, group_size, transposed=False)
    if indices.dtype not in _INTEGERS:
        raise TypeError(f"indices must have an integer dtype, not {indices.dtype}")


def _check_linear(
    x: Tensor, weights: Tensor, weight_scales: Tensor, group_size: int, bias: Tensor | None
) -> None:
    _check_matrix("weights", weights, weight_scales, group_size, transposed=True)
    if x.dtype not in _FLOATS:
        raise FormatError(f"self must be float16, bfloat16 or float32, not {x.dtype}")
    vocab, embed_dim = weights.shape[0], weights.shape[1] * 2
    if x.ndim < 1 or x.shape[-1] != embed_dim:
        raise FormatError(f"self must have shape [..., {embed_dim}], not {list(x.shape)}")
    if bias is not None and (bias.ndim != 1 or bias.shape[0] != vocab):
        raise FormatError(f"bias must have shape [{vocab}], not {list(bias.shape)}")


def _check_matrix(
    name: str, packed: Tensor, scales: Tensor, group_size: int, *, transposed: bool
) -> None:
    """Check dtypes and shapes, which are known without the values; `Q4Weight` checks the rest."""
    if packed.dtype != torch.uint8 or packed.ndim != 2:
        raise FormatError(
            f"{name} must be uint8 [V, K/2], two nibbles a byte, not {packed.dtype} "
            f"{list(packed.shape)}"
        )
    if scales.dtype not in (torch.float16, torch.float32):
        raise FormatError(f"weight_scales must be float16 or float32, not {scales.dtype}")
    vocab, embed_dim = packed.shape[0], packed.shape[1] * 2
    if group_size < 1 or embed_dim % group_size:
        raise FormatError(f"group_size = {group_size} must divide K = {embed_dim}")
    groups = embed_dim // group_size
    expected = [groups, vocab] if transposed else [vocab, groups]
    if list(scales.shape) != expected:
        order = "[K/G, V]" if transposed else "[V, K/G]"
        raise FormatError(
            f"weight_scales must have shape {order} = {expected}, not {list(scales.shape)}"
        )


import wgpu_q4.torch_gradients  # noqa: E402, F401  gives the ops above their gradients
