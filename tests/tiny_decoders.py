"""Tiny models of the families that the decoder runs, random, and what transformers makes of them.

The oracle is transformers on the numbers that the decoder holds: matrices of layers rounded or
quantized, the embedding quantized.  It runs in float32, and in float64 to know how far rounding
alone carries float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from wgpu_q4 import Q4Weight
from wgpu_q4.decoder.weights import Body

VOCAB = 101
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        name: of the kind.
        model, config: the classes of transformers.
        options: beside `SMALL`.
    """

    name: str
    model: Any
    config: Any
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def build(self, **options: Any) -> Any:
        """Return a model with random weights, the same each time; no gain is one, no bias zero."""
        torch.manual_seed(11)
        model = self.model(self.config(**{**SMALL, **self.options, **options})).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "layernorm.weight")):
                torch.nn.init.normal_(parameter, 0.0 if self.name.startswith("gemma") else 1.0, 0.3)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, 0.0, 0.5)
        return model


LLAMA = Kind("llama", LlamaForCausalLM, LlamaConfig)
GEMMA3 = Kind(
    "gemma3",
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    {
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 24,
    },
)
KINDS = (
    LLAMA,
    Kind("llama 3", LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3}),
    Kind("untied", LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    Kind("one head of keys", LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 1}),
    Kind("qwen2", Qwen2ForCausalLM, Qwen2Config),
    Kind(
        "qwen2, local",
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    Kind("qwen3", Qwen3ForCausalLM, Qwen3Config, {"head_dim": 24}),
    Kind(
        "gemma2",
        Gemma2ForCausalLM,
        Gemma2Config,
        {
            **GEMMA3.options,
            "final_logit_softcapping": 20.0,
            "attn_logit_softcapping": 5.0,
            "attn_implementation": "eager",
        },
    ),
    GEMMA3,
    Kind(
        "gemma3, scaled",
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {
            **GEMMA3.options,
            "final_logit_softcapping": 20.0,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            },
        },
    ),
)


def with_held_numbers(model: Any, body: Body = "float16") -> Any:
    """Return a copy of a model that has the numbers which a decoder of it holds."""
    copy = type(model)(model.config).eval()
    held = {}
    for name, value in model.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name or (value.dim() == 2 and body == "q4gsw"):
            held[name] = torch.from_numpy(Q4Weight.quantize(value.float(), 32).dequantize())
        elif value.dim() == 2:
            held[name] = value.half().float()
        else:
            held[name] = value.float()
    copy.load_state_dict(held)
    return copy


def logits_of(model: Any, ids: Sequence[int]) -> tuple[NDArray[np.float64], float]:
    """Return a model's logits ``[n, vocab]`` in float64, and how far float32 is from them.

    The decoder adds the same numbers in float32 in another order, so it should be about as far.
    """
    sequence = torch.tensor([list(ids)])
    with torch.no_grad():
        single = model(sequence).logits[0].double().numpy()
        double = model.double()(sequence).logits[0].numpy()
        model.float()
    return double, float(np.abs(single - double).max())


ORDERS = 8
"""How many times farther than transformers' float32 the decoder's may be from float64.

Both round as often. The largest of the many deviations varies by less than this from one order of
sums to another."""


@cache
def prompt(length: int) -> tuple[int, ...]:
    """Return random ids."""
    return tuple(np.random.default_rng(length).integers(3, VOCAB, length).tolist())
