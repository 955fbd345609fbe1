"""State dicts of tied modules: plain tensors, the matrix once, and a tie that lasts."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from tests.tiny_models import HIDDEN, VOCAB
from wgpu_q4 import Q4Weight
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear

IDS = torch.tensor([[1, 2, 3], [VOCAB - 1, 0, 55]])
PACKED, SCALES = "weight_packed", "weight_scales"


def random_weight(seed: int) -> Q4Weight:
    matrix = np.random.default_rng(seed).normal(size=(VOCAB, HIDDEN)).astype(np.float32)
    return Q4Weight.quantize(matrix, 8)


class Tied(nn.Module):
    def __init__(self, seed: int, *, head_first: bool = False) -> None:
        super().__init__()
        head: Any = QuantizedLinear(random_weight(seed), torch.ones(VOCAB))
        if head_first:
            self.head = head
        self.embed = QuantizedEmbedding(head)
        self.head = head

    def forward(self, ids: torch.Tensor) -> Any:
        return self.head(self.embed(ids))


def assert_holds(model: Tied, weight: Q4Weight) -> None:
    """Both modules hold one object, which is that matrix, and compute with it."""
    assert model.embed.weight is model.head.weight
    assert model.head.q4weight.same_matrix(weight)
    assert model.embed.weight_packed is model.head.weight_packed
    assert torch.equal(model.embed(IDS), torch.from_numpy(weight.dequantize())[IDS])
    with torch.no_grad():
        model(IDS)
    assert len(model.head.q4weight.residents) == 1


@pytest.mark.parametrize("head_first", [False, True])
def test_holds_plain_tensors_once_under_the_first_module(head_first: bool) -> None:
    model = Tied(1, head_first=head_first)
    first = "head" if head_first else "embed"
    state = model.state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        f"{first}.{PACKED}": torch.uint8,
        f"{first}.{SCALES}": torch.float16,
        "head.bias": torch.float32,
    }
    weight = model.embed.q4weight
    assert state[f"{first}.{PACKED}"].data_ptr() == weight.packed.ctypes.data
    assert Q4Weight(state[f"{first}.{PACKED}"], state[f"{first}.{SCALES}"]).same_matrix(weight)
    # The state of a part is complete, and a plain dict takes it under every name.
    assert set(model.embed.state_dict()) == {PACKED, SCALES}
    assert set(model.head.state_dict()) == {PACKED, SCALES, "bias"}
    assert len(model.state_dict(destination={})) == 5


def named_twice(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a tied model with the matrix under both modules, as torch names parameters."""
    state: dict[str, torch.Tensor] = model.state_dict(destination={})
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("head_first", [False, True])
@pytest.mark.parametrize("under", [("embed", "head"), ("embed",), ("head",)])
def test_a_state_that_names_the_matrix_once_or_twice_keeps_the_tie(
    under: tuple[str, ...], head_first: bool
) -> None:
    state = named_twice(Tied(2))
    chosen = {n: t for n, t in state.items() if n.startswith(under) or n == "head.bias"}
    for strict in (True, False):
        model = Tied(3, head_first=head_first)
        found = model.load_state_dict(chosen, strict=strict)
        assert (found.missing_keys, found.unexpected_keys) == ([], [])
        assert_holds(model, random_weight(2))


def test_half_a_matrix_is_missing_the_other_half() -> None:
    state = named_twice(Tied(2))
    del state[f"embed.{SCALES}"], state[f"head.{PACKED}"]
    with pytest.raises(RuntimeError, match=f'"embed.{SCALES}", "head.{PACKED}"'):
        Tied(3).load_state_dict(state)


@pytest.mark.parametrize("strict", [True, False])
def test_a_matrix_of_floats_is_refused(strict: bool) -> None:
    model = Tied(3)
    state = {"embed.weight": torch.ones(VOCAB, HIDDEN), "head.bias": torch.ones(VOCAB)}
    with pytest.raises(RuntimeError, match=r"embed\.weight is a matrix of floats.*before tie"):
        model.load_state_dict(state, strict=strict)
    assert_holds(model, random_weight(3))


def test_two_different_matrices_are_refused_for_tied_modules() -> None:
    state = named_twice(Tied(2))
    other = named_twice(Tied(4))
    state[f"head.{PACKED}"], state[f"head.{SCALES}"] = (
        other[f"head.{PACKED}"],
        other[f"head.{SCALES}"],
    )
    with pytest.raises(RuntimeError, match="hold another matrix than the module that this"):
        Tied(3).load_state_dict(state)


def test_modules_made_of_one_weight_load_one_by_one() -> None:
    """They share a weight, and are not tied: each has its own place in a state dict."""
    weight = random_weight(5)
    embed, head = QuantizedEmbedding(weight), QuantizedLinear(weight)
    assert embed.weight is head.weight
    embed.load_state_dict(Tied(2).embed.state_dict())
    assert embed.q4weight.same_matrix(random_weight(2))
    assert head.q4weight is weight


@pytest.mark.parametrize("head_first", [False, True])
def test_safetensors_save_model_and_load_model(tmp_path: Path, head_first: bool) -> None:
    save_model(Tied(2, head_first=head_first), str(tmp_path / "model.safetensors"))
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len([name for name in names if name.endswith(PACKED)]) == 1
    model = Tied(3, head_first=head_first)
    missing, unexpected = load_model(model, tmp_path / "model.safetensors")
    assert (list(missing), unexpected) == ([], [])
    assert_holds(model, random_weight(2))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("assign", [False, True])
def test_torch_save_and_load(tmp_path: Path, mmap: bool, assign: bool) -> None:
    torch.save(Tied(2).state_dict(), tmp_path / "model.pt")
    gc.collect()  # nothing holds the matrix any more
    state = torch.load(tmp_path / "model.pt", weights_only=True, mmap=mmap)
    model = Tied(3)
    model.load_state_dict(state, assign=assign)
    assert_holds(model, random_weight(2))


def test_a_load_leaves_the_matrix_of_others_alone() -> None:
    model = Tied(3)
    weight, twin = model.embed.q4weight, copy.deepcopy(model)
    digest = weight.sha256
    model.load_state_dict(Tied(2).state_dict())
    assert twin.embed.q4weight is twin.head.q4weight is weight
    assert Q4Weight(weight.packed, weight.scales).sha256 == digest
    twin.load_state_dict(Tied(4).state_dict())
    assert_holds(model, random_weight(2))
    assert_holds(twin, random_weight(4))


def test_copies_stay_tied(tmp_path: Path) -> None:
    for copied in (copy.deepcopy(Tied(3)), pickle.loads(pickle.dumps(Tied(3)))):
        copied.load_state_dict(Tied(2).state_dict())
        assert_holds(copied, random_weight(2))


def test_a_matrix_in_the_embedding_convention_is_held_in_the_linear_one() -> None:
    weight = random_weight(6)
    other = Q4Weight(weight.packed_as("embedding"), weight.scales, "embedding")
    module = QuantizedEmbedding(other)
    assert torch.equal(module.weight_packed, torch.from_numpy(weight.packed.copy()))
    assert torch.equal(module(IDS), QuantizedEmbedding(weight)(IDS))


def test_conversions_of_a_model_leave_the_matrix_as_it_is() -> None:
    model = Tied(7)
    state = named_twice(model)
    model.double().half().to("meta")
    assert model.head.bias.is_meta
    for name in (PACKED, SCALES):
        assert torch.equal(getattr(model.embed, name), state[f"embed.{name}"])
