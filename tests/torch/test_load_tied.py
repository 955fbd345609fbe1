"""`load_tied` on what save_pretrained writes: the matrix that `tie` makes of the loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from wgpu_q4 import FormatError, Q4Weight, load_tied
from wgpu_q4.nn import tie

AUTO: Any = AutoModelForCausalLM
SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 96}
SMALL = {**SIZES, "tie_word_embeddings": True}
CONFIGS: list[Any] = [
    LlamaConfig(**SMALL, intermediate_size=64, num_attention_heads=2),
    GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=96),
    MambaConfig(**SMALL, state_size=4),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_models_of_transformers(tmp_path: Path, config: Any) -> None:
    torch.manual_seed(0)
    model = AUTO.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    expected = Q4Weight.quantize(model.get_input_embeddings().weight)
    assert load_tied(tmp_path).same_matrix(expected)
    tied = tie(model)
    model.save_pretrained(tmp_path / "tied")
    assert load_tied(tmp_path / "tied").same_matrix(tied.weight)


def test_an_encoder_decoder(tmp_path: Path) -> None:
    config = T5Config(d_model=64, d_kv=8, d_ff=64, num_layers=1, num_heads=2, vocab_size=96)
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    assert load_tied(tmp_path).same_matrix(Q4Weight.quantize(model.shared.weight))


def test_a_model_that_is_not_tied(tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES, tie_word_embeddings=False, num_attention_heads=2)
    AUTO.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(FormatError, match=r"is not tied: its embedding is 'model\.embed_tokens'"):
        load_tied(tmp_path)
