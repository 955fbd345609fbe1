"""A model that went through `wgpu_q4.nn.tie`, with its 4-bit matrix as tensors in the graph."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import wgpu_q4.torch_ops  # noqa: F401  registers the ops
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear
from wgpu_q4.weight import Q4Weight


def exportable(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that ``torch.export`` and ``torch.compile`` go through in one piece.

    The modules of `wgpu_q4.nn` keep their matrix where no tracer sees it.  In the copy they are
    modules that hold it in buffers, the same buffer for the same matrix, and run the custom ops of
    `wgpu_q4.torch_ops` on it.  All other parameters are the model's own, not copied.

    Args:
        model: after `wgpu_q4.nn.tie`, or built with `QuantizedEmbedding` and `QuantizedLinear`.

    Raises:
        ValueError: no module of `wgpu_q4.nn` is in the model.
    """
    if not any(isinstance(m, (QuantizedEmbedding, QuantizedLinear)) for m in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has no module of wgpu_q4.nn: tie it first with "
            f"wgpu_q4.nn.tie(model), or export it as it is"
        )
    kept = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, dict(kept))
    matrices: dict[int, _Tensors] = {}
    made: dict[int, nn.Module] = {}
    for name, module in list(copied.named_modules(remove_duplicate=False)):
        if not isinstance(module, (QuantizedEmbedding, QuantizedLinear)):
            continue
        weight = module.q4weight
        tensors = matrices.setdefault(id(weight), _Tensors(weight))
        if id(module) not in made:
            made[id(module)] = (
                _Embedding(module, tensors)
                if isinstance(module, QuantizedEmbedding)
                else _Linear(module, tensors)
            )
        if not name:
            return made[id(module)]
        parent, _, leaf = name.rpartition(".")
        setattr(copied.get_submodule(parent), leaf, made[id(module)])
    return copied


class _Tensors:
    """The buffers of one matrix, made once for all the modules that read it."""

    def __init__(self, weight: Q4Weight) -> None:
        self.group_size = weight.group_size
        self.packed = torch.from_numpy(np.array(weight.packed_as("linear")))
        self.scales = torch.from_numpy(np.array(weight.scales))
        self.scales_by_group = self.scales.t().contiguous()


class _Embedding(nn.Module):
    packed: Tensor
    scales: Tensor
    embed_scale: Any

    def __init__(self, source: QuantizedEmbedding, tensors: _Tensors) -> None:
        super().__init__()
        self.group_size, self.dtype = tensors.group_size, source.dtype
        self.register_buffer("packed", tensors.packed)
        self.register_buffer("scales", tensors.scales)
        if isinstance(source.embed_scale, Tensor):
            self.register_buffer("embed_scale", source.embed_scale)
        else:
            self.embed_scale = source.embed_scale

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = torch.ops.wgpu_q4.embedding_q4gsw(
            self.packed, self.scales, self.group_size, ids, True
        ).to(self.dtype)
        if self.embed_scale is None:
            return rows
        scale = self.embed_scale
        return rows * (scale.to(rows) if isinstance(scale, Tensor) else scale)


class _Linear(nn.Module):
    packed: Tensor
    scales_by_group: Tensor

    def __init__(self, source: QuantizedLinear, tensors: _Tensors) -> None:
        super().__init__()
        self.group_size = tensors.group_size
        self.register_buffer("packed", tensors.packed)
        self.register_buffer("scales_by_group", tensors.scales_by_group)
        self.register_parameter("bias", source.bias)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.wgpu_q4.linear_q4gsw(
            x, self.packed, self.scales_by_group, self.group_size, self.bias
        )
        return result
