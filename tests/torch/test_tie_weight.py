"""`tie(model, weight=…)`: a matrix that is 4-bit already, for a model that may have no values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from tests.tiny_models import (
    HIDDEN,
    IDS,
    VOCAB,
    build,
    every_family,
    gemma3,
    llama,
    random_weight,
    with_dequantized_matrix,
)
from wgpu_q4 import Q4Weight
from wgpu_q4.errors import FormatError
from wgpu_q4.nn import QuantizedEmbedding, tie


def empty(family: Callable[..., nn.Module]) -> Any:
    """A model without values; what is computed from its config has them."""
    with init_empty_weights(include_buffers=False):
        return family().eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def test_the_given_matrix_is_used_and_the_models_own_is_not_read() -> None:
    model, weight = build(llama), random_weight()
    twin = with_dequantized_matrix(model, weight)
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    report = tie(model, weight=weight)
    assert report.weight is weight is model.lm_head.q4weight is model.model.embed_tokens.q4weight
    assert torch.allclose(logits(model), logits(twin), atol=1e-6)
    assert report.bytes_before == VOCAB * HIDDEN * 4


@every_family
def test_a_model_without_values_takes_a_matrix_and_then_the_state_of_a_tied_model(
    family: Callable[..., nn.Module],
) -> None:
    model, weight = build(family), random_weight()
    tie(model, weight=weight)
    later = empty(family)
    assert next(later.parameters()).is_meta
    tie(later, weight=weight)
    later.load_state_dict(model.state_dict(), assign=True)
    later.tie_weights()  # BERT's head has a bias, itself tied
    assert torch.equal(logits(later), logits(model))


def test_a_scale_that_is_on_the_meta_device_too() -> None:
    """The scale of Gemma's embedding is a buffer, which a model made there lacks as well."""
    with torch.device("meta"):
        model: Any = gemma3()
    tie(model, weight=random_weight())
    rows = model.model.embed_tokens(IDS)
    want = torch.from_numpy(random_weight().dequantize())[IDS] * torch.tensor(HIDDEN**0.5)
    assert torch.equal(rows, want)


def test_a_model_whose_ties_transformers_has_not_made_yet() -> None:
    """As from_pretrained finds it: the names are tied, the parameters are not the same."""
    model = empty(llama)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert tie(model, weight=random_weight()).replaced == ("model.embed_tokens", "lm_head")
    apart = empty(lambda: llama(tie_word_embeddings=False))
    with pytest.raises(ValueError, match="are different matrices, not tied"):
        tie(apart, weight=random_weight())


class Shifted(nn.Embedding):
    embed_scale = 2.0

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.embed_scale + (ids == VOCAB - 1)[..., None]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"weight": random_weight(VOCAB - 1)}, FormatError, r"\[100, 40\].* \[101, 40\]"),
        ({"weight": random_weight(VOCAB, 32)}, FormatError, r"\[101, 32\].* \[101, 40\]"),
        ({"weight": np.zeros((VOCAB, HIDDEN), np.float32)}, TypeError, "a Q4Weight, not ndarray"),
        (
            {"weight": QuantizedEmbedding(random_weight()).weight},
            TypeError,
            "a Q4Weight, not Q4Tensor: pass its q4weight",
        ),
        ({"weight": random_weight(), "group_size": 40}, FormatError, "group_size is 40.* have 8"),
        (
            {"weight": random_weight(), "scales_dtype": torch.float32},
            FormatError,
            "scales_dtype is torch.float32, .* are float16",
        ),
        ({"weight": random_weight(), "scales_dtype": "int8"}, FormatError, "not 'int8'"),
    ],
    ids=["vocab", "embed_dim", "type", "tensor", "group_size", "scales_dtype", "no such dtype"],
)
@pytest.mark.parametrize("without_values", [False, True])
def test_refuses_another_matrix_than_the_models_and_changes_nothing(
    without_values: bool, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = empty(llama) if without_values else build(llama)
    modules, ties = dict(model.named_modules()), copy.copy(model.all_tied_weights_keys)
    with pytest.raises(error, match=words):
        tie(model, **arguments)
    assert dict(model.named_modules()) == modules
    assert model.all_tied_weights_keys == ties


def test_refuses_an_embedding_that_does_more_than_scale_without_values_too() -> None:
    model = empty(llama)
    odd = Shifted(VOCAB, HIDDEN)
    odd.weight = model.lm_head.weight
    model.set_input_embeddings(odd)
    with pytest.raises(TypeError, match=r"embed_tokens is a Shifted, whose forward does more"):
        tie(model, weight=random_weight())


def test_what_the_weight_is_may_be_said_again() -> None:
    report = tie(build(llama), 8, weight=random_weight(), scales_dtype=np.float16)
    assert isinstance(report.weight, Q4Weight)
    own = tie(build(llama), 40, scales_dtype="float32").weight
    assert (own.group_size, own.scales.dtype.name) == (40, "float32")
    wide = build(llama, hidden_size=64, num_attention_heads=4, num_key_value_heads=4)
    assert tie(wide).weight.group_size == 32
