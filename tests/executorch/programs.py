"""What the tests of `share_tied_weights` look at in a program before and after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from tests.tied_models import IDS, run
from wgpu_q4 import Q4Weight, embedding, linear, reference

ET_VK = torch.ops.et_vk


def calls(program: ExportedProgram, target: Any = None) -> list[Node]:
    """The op calls of a program, or the calls of one op."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return [node for node in nodes if target is None or node.target == target]


def targets(program: ExportedProgram) -> list[Any]:
    """The ops that a program calls."""
    return [node.target for node in calls(program)]


def check_numbers(before: ExportedProgram, after: ExportedProgram, weight: Q4Weight) -> None:
    """Rows to the last bit; logits within the bound of two float32 sums of the same terms."""
    rows, logits = run(after)
    rows_before, logits_before = run(before)
    assert torch.equal(rows, rows_before)
    bound = 2 * reference.linear_bound(rows[0].numpy(), weight)
    assert (np.abs((logits - logits_before)[0].numpy()) <= bound).all()
    assert torch.equal(rows, embedding(IDS, weight))
    assert (np.abs((logits - linear(rows, weight))[0].numpy()) <= bound).all()


def check_close(
    before: ExportedProgram, after: ExportedProgram, ids: Tensor = IDS, atol: float = 1e-4
) -> None:
    """Every output within ``atol``."""
    results = [run(program, ids) for program in (after, before)]
    new, old = (result if isinstance(result, tuple) else (result,) for result in results)
    for one, other in zip(new, old, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=atol)
