"""Small tied models for the ExecuTorch tests, quantized by torchao itself."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.quantization.granularity import PerGroup

from wgpu_q4 import Q4Weight
from wgpu_q4.executorch import ShareReport

INT3: torch.dtype = getattr(torch, "int3")  # noqa: B009  missing in torch's type information
INT4: torch.dtype = getattr(torch, "int4")  # noqa: B009

VOCAB, EMBED_DIM, GROUP = 512, 256, 32
PACKED_BYTES = VOCAB * EMBED_DIM // 2
SCALES_BYTES = VOCAB * EMBED_DIM // GROUP * 4
IDS = torch.tensor([[1, 2, 3, 5, 8, 511, 0]])
LENGTH = {"ids": {1: Dim("length", min=2, max=64)}}


class Tied(nn.Module):
    """Embedding and head on one float matrix; returns the rows and the logits."""

    def __init__(self, bias: bool = False, shape: tuple[int, int] = (VOCAB, EMBED_DIM)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(*shape)
        self.head = nn.Linear(shape[1], shape[0], bias=bias)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.embed(ids)
        return rows, self.head(rows)


class OnlyLogits(Tied):
    def forward(self, ids: Tensor) -> Any:
        return self.head(self.embed(ids))


class OwnOps(nn.Module):
    """This package's modules, as `wgpu_q4.nn.tie` leaves them in a model."""

    def __init__(self, bias: Tensor | None = None) -> None:
        from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear

        super().__init__()
        weight = weight_of(Tied())
        self.embed = QuantizedEmbedding(weight)
        self.head = QuantizedLinear(weight, bias)

    def forward(self, ids: Tensor) -> Any:
        rows = self.embed(ids)
        return rows, self.head(rows)


def is_matrix(module: nn.Module, _: str) -> bool:
    return isinstance(module, (nn.Embedding, nn.Linear))


def quantized(model: nn.Module, group_size: int = GROUP, **options: Any) -> Any:
    """torchao's 4-bit weights, a copy for each module."""
    config = IntxWeightOnlyConfig(INT4, PerGroup(group_size), **options)
    quantize_(model, config, filter_fn=is_matrix)
    return model


def quantized_shared(model: Any, group_size: int = GROUP) -> Any:
    """The same, and then the head holds the embedding's parameter: what tied means."""
    quantized(model, group_size)
    model.head.weight = model.embed.weight
    return model


def quantized_int8_activations(model: nn.Module) -> nn.Module:
    embeddings = IntxWeightOnlyConfig(INT4, PerGroup(GROUP))
    quantize_(model, embeddings, filter_fn=lambda module, _: isinstance(module, nn.Embedding))
    quantize_(
        model,
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=INT4, weight_granularity=PerGroup(GROUP)
        ),
    )
    return model


def export(model: nn.Module, *, dynamic: bool = False, ids: Tensor = IDS) -> ExportedProgram:
    return torch.export.export(model, (ids,), dynamic_shapes=LENGTH if dynamic else None)


@cache
def build_pattern_graphs_once() -> None:
    """Keep the graphs of ExecuTorch's patterns, which it exports anew four times for each program.

    That is two thirds of the time of lowering a small one.  The graphs are only read.
    """
    from executorch.backends.vulkan.patterns import fusable_patterns

    for entry in fusable_patterns.values():
        if entry.get_graphs_fn is not None:
            entry.get_graphs_fn = cache(entry.get_graphs_fn)


def lower(program: ExportedProgram) -> bytes:
    """The ``.pte`` that ExecuTorch makes of a program with its Vulkan partitioner."""
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import to_edge_transform_and_lower

    logging.getLogger().setLevel(logging.WARNING)  # the partitioner turns it to INFO on import
    build_pattern_graphs_once()
    edge = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()])
    return bytes(edge.to_executorch().buffer)


def weight_of(model: Tied, scales_dtype: Any = "float32") -> Q4Weight:
    """The 4-bit matrix by this package's own quantizer, of the float one."""
    return Q4Weight.quantize(model.embed.weight.detach().numpy(), GROUP, scales_dtype)


def reasons(report: ShareReport) -> str:
    return "\n".join(left.reason for left in report.left_alone)


def run(program: ExportedProgram, ids: Tensor = IDS) -> Any:
    with torch.no_grad():
        return program.module()(ids)
