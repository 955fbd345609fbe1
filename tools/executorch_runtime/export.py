"""A case as a ``.pte``, with the results that a runtime should give."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.quantization.granularity import PerGroup

from tools.executorch_runtime.cases import Case
from wgpu_q4.executorch import inspect_pte, share_tied_weights
from wgpu_q4.executorch.forms import Runtime

_INT4: torch.dtype = getattr(torch, "int4")  # noqa: B009  missing in torch's type information


@dataclass(frozen=True)
class Exported:
    """A program on disk.

    Attributes:
        case: what it was made of.
        file: the ``.pte``.
        ids: its input.
        rows: the embedding's rows, by the eager program.
        logits: the head's logits, by the eager program.
        magnitude: ``Σ |x·w|`` of each logit: what float errors of the sum are relative to.
        step: what one 8-bit step in each activation may change of each logit; 0 for a weight-only
            head.
        nbytes: bytes of the file.
        constants: bytes of the constants on the device, for each runtime.
    """

    case: Case
    file: Path
    ids: NDArray[Any]
    rows: NDArray[np.float32]
    logits: NDArray[np.float32]
    magnitude: NDArray[np.float64]
    step: NDArray[np.float64]
    nbytes: int
    constants: dict[str, int]


class Ends(nn.Module):
    """Both ends of a language model; returns the rows and the logits."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(case.vocab, case.embed_dim)
        self.head = nn.Linear(case.embed_dim, case.vocab, bias=case.bias)
        self.head.weight = self.embed.weight
        norm = torch.rand(case.embed_dim) + 0.5 if case.norm else None
        self.norm = None if norm is None else nn.Parameter(norm, requires_grad=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.embed(ids)
        return rows, self.head(self.hidden(rows))

    def hidden(self, rows: Tensor) -> Tensor:
        """Return what the head multiplies."""
        if self.norm is None:
            return rows
        return rows * torch.rsqrt((rows * rows).mean(-1, keepdim=True) + 1e-6) * self.norm


def export(case: Case, folder: Path, runtime: Runtime) -> Exported:
    """Export a case for a runtime, and compute what it should give.

    Raises:
        ExportError: the runtime is known not to run the program.
    """
    model = _quantized(case)
    ids = _ids(case)
    dims = {axis: Dim(f"size{axis}", min=2, max=case.ids[axis]) for axis in case.dynamic}
    program = torch.export.export(model, (ids,), dynamic_shapes={"ids": dims} if dims else None)
    if case.shared:
        program, _ = share_tied_weights(program, runtime=runtime, scales_once=case.scales_once)
    logging.getLogger().setLevel(logging.WARNING)  # the partitioner turns it to INFO on import
    edge = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()])
    file = folder / "model.pte"
    with file.open("wb") as opened:
        edge.to_executorch().write_to_file(opened)
    report = inspect_pte(file)
    with torch.no_grad():
        rows, logits = model(ids)
        hidden = model.hidden(rows)
        weight = model.embed.weight.dequantize()
    magnitude = hidden.double().abs() @ weight.double().abs().t()
    span = hidden.amax(-1, keepdim=True).clamp(min=0) - hidden.amin(-1, keepdim=True).clamp(max=0)
    step = span.double() / 255 * weight.double().abs().sum(-1)
    return Exported(
        case=case,
        file=file,
        ids=ids.numpy(),
        rows=rows.numpy(),
        logits=logits.numpy(),
        magnitude=magnitude.numpy(),
        step=step.numpy() * (case.head != "weight-only"),
        nbytes=report.nbytes,
        constants={memory.target: memory.constants for memory in report.device},
    )


def _quantized(case: Case) -> Ends:
    model = Ends(case)
    group = PerGroup(case.group_size)
    weight_only = IntxWeightOnlyConfig(_INT4, group)
    quantize_(model, weight_only, filter_fn=lambda module, _: isinstance(module, nn.Embedding))
    if case.head == "weight-only":
        quantize_(model, weight_only)
    else:
        activations = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=_INT4, weight_granularity=group
        )
        quantize_(model, activations)
    return model


def _ids(case: Case) -> Tensor:
    dtype = torch.int64 if case.ids_dtype == "int64" else torch.int32
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, case.vocab, case.ids, dtype=dtype, generator=generator)
    ids.view(-1)[-1], ids.view(-1)[0] = 0, case.vocab - 1
    return ids
