"""`share_tied_weights` on programs whose names and numbers are awkward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tests.tied_models import quantized
from wgpu_q4.executorch import share_tied_weights

VOCAB, EMBED_DIM = 64, 32
IDS = torch.arange(5)[None]


class CalledInput(nn.Module):
    """Its argument is called like a builtin, which a copied graph would rename."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, EMBED_DIM)
        self.head = nn.Linear(EMBED_DIM, VOCAB, bias=False)

    def forward(self, input: Tensor) -> Any:
        return self.head(self.embed(input))


def numbered() -> nn.Module:
    """Its modules have numbers for names."""
    return nn.Sequential(nn.Embedding(VOCAB, EMBED_DIM), nn.Linear(EMBED_DIM, VOCAB, bias=False))


def program_of(model: nn.Module, factor: float = 1) -> ExportedProgram:
    embedding, head = model.children()
    matrix: Any = embedding.weight
    with torch.no_grad():
        matrix.mul_(factor)
    head.weight = matrix
    quantized(model, EMBED_DIM)
    head.weight = embedding.weight
    return torch.export.export(model, (IDS,))


@pytest.mark.parametrize("make", [CalledInput, numbered])
def test_any_name_will_do(make: Any) -> None:
    program = program_of(make())
    shared, report = share_tied_weights(program)
    assert len(report.shared) == 1
    assert torch.equal(shared.module()(IDS), program.module()(IDS))


def test_scales_too_small_for_float16_are_reported() -> None:
    program = program_of(numbered(), factor=1e-5)
    _, report = share_tied_weights(program, scales_dtype="float16", force_fp16=True)
    assert "64 of its scales are below float16's normal range" in " ".join(report.shared[0].notes)
    _, report = share_tied_weights(program)
    assert not report.shared[0].notes


def test_scales_that_are_not_finite_are_left_alone() -> None:
    program = program_of(numbered(), factor=float("nan"))
    same, report = share_tied_weights(program)
    assert same is program
    assert "not all finite" in str(report)


def test_a_module_is_no_program() -> None:
    module: Any = numbered()
    with pytest.raises(TypeError, match=r"torch\.export\.export returns, not Sequential"):
        share_tied_weights(module)
