"""Device arrays from torch tensors, and as torch tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.cases import ODD, random_weight
from wgpu_q4 import DeviceArray, embedding, linear, to_device


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.tensor([[1, 2], [3, -4]]), torch.int32),
        (torch.tensor([1.5, -0.0], dtype=torch.float16), torch.float16),
        (torch.tensor([1.5, 3e38], dtype=torch.bfloat16), torch.float32),
        (torch.zeros(2, 0), torch.float32),
    ],
    ids=str,
)
def test_there_and_back(device: Any, given: torch.Tensor, kept: torch.dtype) -> None:
    found = to_device(given, device).torch()
    assert found.dtype == kept
    assert torch.equal(found, given.to(kept))


def test_the_ops_give_device_arrays(device: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), torch.tensor([3, 0, 12])
    rows = embedding(to_device(ids, device), weight)
    assert isinstance(rows, DeviceArray)
    assert torch.equal(rows.torch(), embedding(ids, weight, device=device))
    logits = linear(rows, weight, bias=torch.ones(ODD.vocab))
    assert torch.equal(logits.torch(), linear(rows.torch(), weight, torch.ones(13), device))


def test_a_bias_that_asks_for_a_gradient(device: Any) -> None:
    weight, x = random_weight(ODD, "float16"), to_device(torch.ones(1, 24), device)
    with pytest.raises(RuntimeError, match="bias asks for a gradient"):
        linear(x, weight, torch.ones(13, requires_grad=True))
