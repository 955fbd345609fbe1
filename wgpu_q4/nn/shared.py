"""What both modules are: a reference to one weight, copied, pickled and saved without a second."""

from __future__ import annotations

import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from wgpu_q4 import ops
from wgpu_q4.errors import FormatError
from wgpu_q4.kernels import Accuracy
from wgpu_q4.weight import Q4Weight


class _Shared:
    """A weight and the device that reads it, as one opaque attribute of a module.

    Copies of a module share it, for a `Q4Weight` never changes.  Pickling takes the bytes and
    leaves a device object behind: unless the device was named, the copy runs on the default one.
    """

    def __init__(self, weight: Q4Weight, device: Any) -> None:
        if not isinstance(weight, Q4Weight):
            raise TypeError(f"weight must be a Q4Weight, not {type(weight).__name__}")
        _live.setdefault(weight, {})
        self.weight = weight
        self.device = device

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        weight, device = self.weight, self.device if isinstance(self.device, str) else None
        return _unpickled, (weight.packed, weight.scales, weight.convention, device)


def _unpickled(packed: Any, scales: Any, convention: Any, device: str | None) -> _Shared:
    return _Shared(_interned(Q4Weight(packed, scales, convention)), device)


_live: WeakKeyDictionary[Q4Weight, dict[str, Any]] = WeakKeyDictionary()
"""The weights that modules hold, each with its entry in state dicts once that was asked for."""


def _interned(weight: Q4Weight) -> Q4Weight:
    """The weight in use that holds the same matrix, else ``weight``.

    A state dict names a tied matrix under both modules; this is how they share it again.
    """
    return next((known for known in list(_live) if known.same_matrix(weight)), weight)


class Quantized(nn.Module):
    """What both modules are: a reference to a weight, and its place in state dicts."""

    _shared: _Shared

    def __init__(self, weight: Q4Weight, device: Any) -> None:
        super().__init__()
        self._shared = _Shared(weight, device)

    @property
    def weight(self) -> Q4Weight:
        """The packed matrix ``[V, K]``; the same object in every module tied to it."""
        return self._shared.weight

    def get_extra_state(self) -> dict[str, Any]:
        """``packed``, ``scales`` and ``convention`` of the weight.

        The tensors are the weight's own memory, the same objects for every module that holds it:
        ``torch.save`` writes them once.  They must not be changed in place.
        """
        state = _live.setdefault(self.weight, {})
        if not state:
            with warnings.catch_warnings():
                # The arrays are read-only, which torch has no word for.
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                state["packed"] = torch.from_numpy(self.weight.packed)
                state["scales"] = torch.from_numpy(self.weight.scales)
            state["convention"] = self.weight.convention
        return dict(state)

    def set_extra_state(self, state: Any) -> None:
        """Take the weight of a state dict; equal matrices become one object.

        Raises:
            FormatError: not such a state, or a matrix of another shape.
        """
        if not isinstance(state, dict) or not {"packed", "scales", "convention"} <= state.keys():
            raise FormatError(
                f"the extra state of {type(self).__name__} must be a dict with packed, scales and "
                f"convention, not {type(state).__name__}"
            )
        weight = Q4Weight(state["packed"], state["scales"], state["convention"])
        if weight.shape != self.weight.shape:
            raise FormatError(
                f"the state dict holds a matrix of shape {list(weight.shape)}; this "
                f"{type(self).__name__} needs {list(self.weight.shape)}"
            )
        self._shared = _Shared(_interned(weight), self._shared.device)

    def _linear(self, x: Tensor, bias: Tensor | None, accuracy: Accuracy) -> Tensor:
        """``x @ W.T + bias``; gradients are refused rather than lost."""
        if torch.is_grad_enabled() and (
            x.requires_grad or (bias is not None and bias.requires_grad)
        ):
            raise RuntimeError(
                f"{type(self).__name__} is for inference: no gradient passes its 4-bit matrix. "
                f"Run the model under torch.no_grad() or torch.inference_mode()"
            )
        wide = x.dtype == torch.float64  # computed in float32, as is everything here
        if bias is not None and bias.dtype == torch.float64:
            bias = bias.float()
        device = self._shared.device
        given = x.float() if wide else x
        result: Tensor = ops.linear(given, self.weight, bias, device, accuracy=accuracy)
        return result.double() if wide else result

    def _sizes(self) -> str:
        vocab, embed_dim = self.weight.shape
        return f"{vocab}, {embed_dim}, group_size={self.weight.group_size}"
