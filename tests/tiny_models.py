"""Hugging Face models of a few hundred weights, random, and what they must compute once tied."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertLMHeadModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from wgpu_q4 import Q4Weight

VOCAB = 101  # prime: neither a multiple of a block's 8 rows nor of anything else
HIDDEN = 40  # of 8, but not of 16 or 32
IDS = torch.tensor([[1, 2, 3, 5, 8, 13], [VOCAB - 1, 0, 55, 34, 21, 99]])

TOKENS = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL: dict[str, Any] = {
    **TOKENS,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
}


def llama(**options: Any) -> nn.Module:
    settings = {**SMALL, "num_key_value_heads": 5, "tie_word_embeddings": True, **options}
    return LlamaForCausalLM(LlamaConfig(**settings))


def gemma3(**options: Any) -> nn.Module:
    """Its embedding multiplies by √K."""
    settings = {**SMALL, "num_key_value_heads": 5, "head_dim": 8, "sliding_window": 4, **options}
    return Gemma3ForCausalLM(Gemma3TextConfig(**settings))


def gpt2(**options: Any) -> nn.Module:
    settings: dict[str, Any] = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 5, **TOKENS, **options}
    return GPT2LMHeadModel(GPT2Config(**settings))


def bert(**options: Any) -> nn.Module:
    """Its head has a bias, itself tied to another parameter."""
    model = BertLMHeadModel(BertConfig(**{**SMALL, "is_decoder": True, **options}))
    nn.init.normal_(model.cls.predictions.bias)
    return model


FAMILIES = [llama, gemma3, gpt2, bert]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str
)


def build(family: Callable[..., nn.Module], **options: Any) -> Any:
    torch.manual_seed(20)
    return family(**options).eval()


def values_of(weight: Q4Weight) -> NDArray[np.float64]:
    """``(u − 8) · scale``, nibble by nibble from the canonical bytes; exact in float64."""
    packed = weight.packed_as("linear")
    u = np.empty((packed.shape[0], packed.shape[1] * 2))
    u[:, 0::2] = packed & 15
    u[:, 1::2] = packed >> 4
    return (u - 8) * np.repeat(weight.scales.astype(np.float64), weight.group_size, axis=1)


def sum_bound(
    x: NDArray[np.float64], values: NDArray[np.float64], bias: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """How far a float32 ``x @ values.T + bias`` may be from the exact one, in any order of sums.

    ``n·u / (1 − n·u)`` of the sum of magnitudes, ``u = 2⁻²⁴``, after n roundings on the way of a
    term: K for products and sums, one for the scale, one for the bias (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1).
    """
    n = (values.shape[1] + 2) * 2.0**-24
    bound: NDArray[np.float64] = n / (1 - n) * (np.abs(x) @ np.abs(values).T + np.abs(bias))
    return bound


def rounding(largest: NDArray[np.float64], dtype: torch.dtype) -> NDArray[np.float64]:
    """Half a unit in the last place of ``dtype``, for values up to ``largest``."""
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(largest, info.smallest_normal)))
    half_unit: NDArray[np.float64] = 0.5 * info.eps * 2.0**exponent
    return half_unit


def double(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().numpy()
    return array


def random_weight(vocab: int = VOCAB, embed_dim: int = HIDDEN, group_size: int = 8) -> Q4Weight:
    matrix = np.random.default_rng(4).normal(size=(vocab, embed_dim)).astype(np.float32)
    return Q4Weight.quantize(matrix, group_size)


def with_dequantized_matrix(model: Any, weight: Q4Weight) -> Any:
    """A float copy of ``model`` in which the tied matrix is the dequantized ``weight``."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.get_input_embeddings().weight.copy_(torch.from_numpy(weight.dequantize()))
    assert twin.get_output_embeddings().weight is twin.get_input_embeddings().weight
    return twin


@dataclass
class Seen:
    """What went into the head and what came out of it."""

    hidden: Tensor
    logits: Tensor


@torch.no_grad()
def run(model: Any, ids: Tensor = IDS) -> Seen:
    seen: list[Seen] = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: seen.append(Seen(inputs[0].clone(), output.clone()))
    )
    model(input_ids=ids)
    hook.remove()
    (only,) = seen
    return only
