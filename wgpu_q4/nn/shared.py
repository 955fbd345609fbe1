"""What both modules are: buffers on one matrix, copied, pickled, saved and loaded without a second.

The buffers are ``weight_packed`` and ``weight_scales``.  They are the same tensors in every module
that is tied.  A state dict names them once, under the first of the modules, as safetensors requires
it; it may name them under any or all of the modules when it is loaded.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wgpu_q4 import ops, rich
from wgpu_q4.errors import FormatError
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.matrix import Holder, Matrix, matrix_of, matrix_of_tensors
from wgpu_q4.nn.tensor import Q4Tensor
from wgpu_q4.torch_ops import device_key
from wgpu_q4.weight import Q4Weight

BUFFERS = ("weight_packed", "weight_scales")
"""The names of the buffers of a matrix."""

_OPS = torch.ops.wgpu_q4


class Quantized(nn.Module):
    """What both modules are: a place for a matrix in a model and in state dicts.

    Attributes:
        weight: the matrix as a tensor ``[V, K]`` in the module's dtype; the same object in every
            module that is tied, of that dtype and on that device.
        weight_packed: uint8 ``[V, K/2]``, in the linear convention.
        weight_scales: ``[V, K/G]``, float16 or float32 whatever dtype the model is converted to.
    """

    weight_packed: Tensor
    weight_scales: Tensor
    weight: Q4Tensor
    _holder: Holder
    _like: Tensor

    def __init__(
        self, weight: Q4Weight | Q4Tensor | Quantized, device: Any, dtype: torch.dtype
    ) -> None:
        nn.Module.__init__(self)
        # An empty buffer has a dtype, and torch converts it with the rest of the model.
        self.register_buffer("_like", torch.empty(0, dtype=dtype), persistent=False)
        holder = weight._holder if isinstance(weight, Quantized) else Holder(matrix_of(weight))
        self._device = device
        self._device_key = device_key(device)
        self._join(holder)
        if isinstance(weight, Quantized):
            # Code that walks over buffers (torch's checkpoints, accelerate's offloading) asks for
            # those in state dicts, and would otherwise find the matrix a second time.
            self._non_persistent_buffers_set.update(BUFFERS)

    def _join(self, holder: Holder) -> None:
        """Hold what ``holder`` holds, from now on."""
        self._holder = holder
        holder.modules.add(self)
        self._show(holder.matrix)

    def _show(self, matrix: Matrix) -> None:
        self._group_size = matrix.weight.group_size
        for name, tensor in zip(BUFFERS, (matrix.packed, matrix.scales), strict=True):
            if name in self._buffers:
                self._buffers[name] = tensor
            else:
                self.register_buffer(name, tensor)
        self._show_weight()

    def _show_weight(self) -> None:
        like = self._like
        self.__dict__["weight"] = self._holder.matrix.tensor(like.dtype, like.device)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another ``weight``: forward would go on with the matrix that is held.

        Raises:
            TypeError: a ``weight`` that is not the module's own.
        """
        if name == "weight" and value is not self.weight:
            raise TypeError(
                f"a {type(self).__name__} keeps its 4-bit matrix, so weight cannot be assigned: "
                f"replace the module, or call the code that assigns weights before tie. torchao's "
                f"quantize_ passes it by with filter_fn=lambda module, _: type(module) is nn.Linear"
            )
        super().__setattr__(name, value)

    @property
    def q4weight(self) -> Q4Weight:
        """The packed matrix ``[V, K]``; the same object in every module tied to it."""
        for module in list(self._holder.modules):
            module._adopt()
        return self._holder.matrix.weight

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of `weight`."""
        return self._like.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantized:
        """Convert what a model's conversions concern: the matrix stays as it is, on the host."""
        kept = {name: self._buffers.pop(name) for name in BUFFERS}
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            self._buffers.update(kept)
        self._show_weight()
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        kept = {name: self._buffers.pop(name) for name in BUFFERS}
        try:
            super()._save_to_state_dict(destination, prefix, keep_vars)
        finally:
            self._buffers.update(kept)
        if self._holder.is_new_to(destination):
            for name in BUFFERS:
                tensor: Tensor = getattr(self, name)
                shared = tensor if keep_vars else tensor.detach()
                # torch's checkpoints are loaded by writing into a state dict.
                is_writable = tensor.is_meta or self._holder.matrix.is_writable
                destination[prefix + name] = shared if is_writable else tensor.clone()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take the matrix of a state dict, which names it under one of the tied modules or more."""
        names = [prefix + name for name in BUFFERS]
        found = [state_dict[name] for name in names if name in state_dict]
        kept = {name: self._buffers.pop(name) for name in BUFFERS}
        rest = {name: value for name, value in state_dict.items() if name not in names}
        try:
            super()._load_from_state_dict(
                rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
            )
        finally:
            self._buffers.update(kept)
        if not found and prefix + "weight" in state_dict:
            error_msgs.append(
                f"{prefix}weight is a matrix of floats, and this {type(self).__name__} holds 4 "
                f"bits: load the state dict into the float model before tie"
            )
        if len(found) == len(names):
            self._load(found[0], found[1], prefix, missing_keys, error_msgs)
        else:
            absent = [name for name in names if name not in state_dict]
            self._holder.miss(absent, missing_keys)

    def _load(
        self,
        packed: Tensor,
        scales: Tensor,
        prefix: str,
        missing_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        where = f"{prefix}{BUFFERS[0]} and {BUFFERS[1]}"
        try:
            matrix = matrix_of_tensors(packed, scales)
        except (FormatError, TypeError) as error:
            error_msgs.append(f"{where} are no 4-bit matrix: {error}")
            return
        held = self._holder.matrix.weight
        if matrix.weight.shape != held.shape:
            error_msgs.append(
                f"{where} hold a matrix of shape {list(matrix.weight.shape)}; this "
                f"{type(self).__name__} needs {list(held.shape)}"
            )
        elif not self._holder.load(matrix, missing_keys):
            error_msgs.append(
                f"{where} hold another matrix than the module that this {type(self).__name__} is "
                f"tied to: the state dict is that of a model whose matrices are not tied"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Quantized:
        copying = sys._getframe(1).f_back
        if copying is not None and copying.f_globals.get("__name__") == "peft.utils.other":
            # The copy would be trained, without an effect: peft looks at parameters alone.
            raise TypeError(
                "peft's modules_to_save trains a copy of a module, and a 4-bit matrix cannot be "
                "trained. Train the module before tie and call merge_and_unload(), or name it in "
                "target_modules"
            )
        for tensor in (self.weight_packed, self.weight_scales):
            memo[id(tensor)] = tensor  # a copied model keeps sharing the matrix
        memo[id(self._device)] = self._device
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        copied._holder.modules.add(copied)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Leave a device object behind: unless it was named, the copy runs on the default one."""
        device = self._device if isinstance(self._device, str) else None
        state = {**self.__dict__, "_device": device, "_device_key": device or ""}
        del state["weight"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._join(self._holder)

    def _adopt(self) -> None:
        """Share the tensors that somebody has put into the buffers, or written into them.

        accelerate replaces the buffers of one module, and torch's checkpoints write into them.
        """
        matrix, packed, scales = self._holder.matrix, self.weight_packed, self.weight_scales
        if packed is matrix.packed and scales is matrix.scales and not matrix.is_changed:
            return
        if all(type(tensor) is Tensor and not tensor.is_meta for tensor in (packed, scales)):
            self._holder.adopt(packed, scales)

    def _is_direct(self, given: Tensor) -> bool:
        """Tell whether to call the op on arrays: a custom op takes longer, and sees gradients,
        traces and tensors without data."""
        if torch.compiler.is_compiling() or type(given) is not Tensor or given.is_meta:
            return False
        if torch._C._functorch.is_functorch_wrapped_tensor(given):
            return True  # arrays refuse it and say what to do; a custom op would ask for more code
        self._adopt()
        return (
            not (given.requires_grad and torch.is_grad_enabled())
            and self.weight_packed is self._holder.matrix.packed
            and self.weight_scales is self._holder.matrix.scales
        )

    def _rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows ``ids.shape + (K,)``: products in float32, rounded once to ``dtype``."""
        if self._is_direct(ids):
            output = "float16" if dtype == torch.float16 else "float32"
            exact: Tensor = ops.embedding(ids, self._holder.matrix.weight, output, self._device)
            return exact.to(dtype)
        matrix = self.weight_packed, self.weight_scales, self._group_size
        rows: Tensor = (
            _OPS.embedding_q4gsw_on(*matrix, ids, self._device_key)
            if self._device_key
            else _OPS.embedding_q4gsw(*matrix, ids, True)
        )
        return rows.to(dtype)

    def _linear(self, x: Tensor, bias: Tensor | None, accuracy: Accuracy) -> Tensor:
        """``x @ W.T + bias`` in the dtype of ``x``."""
        wide = x.dtype == torch.float64  # computed in float32, as is everything here
        if bias is not None and bias.dtype == torch.float64:
            bias = bias.float()
        result = self._product(x.float() if wide else x, bias, accuracy)
        return result.double() if wide else result

    def _product(self, x: Tensor, bias: Tensor | None, accuracy: Accuracy) -> Tensor:
        result: Tensor
        trained = bias is not None and bias.requires_grad and torch.is_grad_enabled()
        if self._is_direct(x) and not trained:
            result = ops.linear(
                x, self._holder.matrix.weight, bias, self._device, accuracy=accuracy
            )
            return result
        matrix = self.weight_packed, self.weight_scales.t(), self._group_size, bias
        if accuracy == "exact" and not self._device_key:
            result = _OPS.linear_q4gsw(x, *matrix)
        else:
            result = _OPS.linear_q4gsw_on(x, *matrix, accuracy, self._device_key)
        return result

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the matrix, where it lies, and who else reads it."""
        weight = self.q4weight
        readers = sorted(type(module).__name__ for module in self._holder.modules)
        return rich.table(repr(self), [("matrix of", ", ".join(readers)), *weight.facts()])

    def _sizes(self) -> str:
        vocab, embed_dim = self.q4weight.shape
        return f"{vocab}, {embed_dim}, group_size={self._group_size}"
