"""Checks that a quantized module can replace a float module without losing anything."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def check_embedding(module: nn.Module, name: str) -> Tensor | float | None:
    """Return the scale of an embedding's rows, or None.

    Raises:
        TypeError: no ``nn.Embedding``, or one that does more than scale its rows.
    """
    if not isinstance(module, nn.Embedding):
        raise TypeError(f"{name} must be an nn.Embedding, not {type(module).__name__}")
    _check_nothing_else(module, name, {"weight"})
    if module.max_norm is not None:
        raise TypeError(f"{name} has max_norm = {module.max_norm}: its rows change as it is used")
    if type(module).forward is nn.Embedding.forward:
        return None
    # transformers has a dozen classes that multiply by embed_scale, and others that do more.
    scale: Any = getattr(module, "embed_scale", None)
    if isinstance(scale, Tensor) and scale.is_meta:
        # transformers, too, fills the tensor from this number once a model has been loaded.
        known = getattr(module, "scalar_embed_scale", None)
        scale = None if known is None else torch.tensor(known, dtype=scale.dtype, device="cpu")
    if scale is None or not _only_scales(module, scale):
        raise TypeError(
            f"{name} is a {type(module).__name__}, whose forward does more than look up rows and "
            f"multiply them by embed_scale; tie and from_float would lose that"
        )
    return scale  # type: ignore[no-any-return]


@torch.no_grad()
def _only_scales(module: nn.Embedding, scale: Tensor | float) -> bool:
    """Return True if an embedding gives ``row · scale`` for every id, to the last bit."""
    if module.weight.is_meta:
        module = _with_one_row(module, scale)
    matrix = module.weight
    factor = scale.to(matrix.dtype) if isinstance(scale, Tensor) else scale
    ids = torch.arange(matrix.shape[0], device=matrix.device)
    parts = torch.split(ids, 8192)
    return all(torch.equal(module(part), matrix[part] * factor) for part in parts)


def _with_one_row(module: nn.Embedding, scale: Tensor | float) -> nn.Embedding:
    """Return an embedding on the meta device with values: one row, the same for all ids."""
    vocab, embed_dim = module.weight.shape
    row = torch.arange(1.0, embed_dim + 1, device="cpu").rsqrt().to(module.weight.dtype)
    filled = copy.copy(module)
    filled._parameters = {"weight": nn.Parameter(row.expand(vocab, embed_dim))}
    if isinstance(scale, Tensor):
        filled._buffers = {**module._buffers, "embed_scale": scale}
    return filled


def check_linear(module: nn.Module, name: str) -> None:
    """Raise `TypeError` unless ``module`` is a plain ``nn.Linear``."""
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{name} must be an nn.Linear, not {type(module).__name__}")
    _check_nothing_else(module, name, {"weight", "bias"})
    if type(module).forward is not nn.Linear.forward:
        raise TypeError(
            f"{name} is a {type(module).__name__}, whose forward is not nn.Linear's; "
            f"tie and from_float would lose what it does"
        )


def _check_nothing_else(module: nn.Module, name: str, parameters: set[str]) -> None:
    """Raise `TypeError` if a module has parameters or hooks that a replacement would lose."""
    extra = module._parameters.keys() - parameters
    if extra:
        raise TypeError(
            f"{name} is a {type(module).__name__} with further parameters: {', '.join(extra)}"
        )
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        raise TypeError(
            f"{name} has hooks or a patched forward, which would be lost. Remove them first; a "
            f"model that accelerate spread over devices has them: load it without offloading"
        )
