"""The decoder against transformers: every family, tokens and logits, short and long contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from tests import rich_tables
from tests.tiny_decoders import (
    GEMMA3,
    KINDS,
    LLAMA,
    LLAMA3,
    ORDERS,
    SMALL,
    VOCAB,
    Kind,
    logits_of,
    prompt,
    with_held_numbers,
)
from wgpu_q4 import FormatError, Q4Weight
from wgpu_q4.decoder import Decoder
from wgpu_q4.decoder.weights import Body
from wgpu_q4.nn import tie

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def decoder_of(model: Any, body: Body = "float16", **options: Any) -> Decoder:
    return Decoder.from_hf(model, body=body, **{"cache": "float32", "capacity": 256, **options})


def check(decoder: Decoder, model: Any, ids: list[int], new: int) -> None:
    """Tokens are transformers', and so are the logits after the prompt and after the last step."""
    made = list(decoder.generate(ids, new, end_of_text=()))
    last = decoder.logits()
    exact, apart = logits_of(model, [*ids, *made])
    assert made == exact[len(ids) - 1 : -1].argmax(-1).tolist()
    assert apart > 0
    assert np.abs(last - exact[-2]).max() <= ORDERS * apart
    decoder.prefill(ids)
    assert np.abs(decoder.logits() - exact[len(ids) - 1]).max() <= ORDERS * apart


@every_kind
def test_tokens_and_logits_are_those_of_transformers(kind: Kind) -> None:
    model = kind.build()
    check(decoder_of(model), with_held_numbers(model), list(prompt(37)), 24)


@pytest.mark.parametrize("kind", [LLAMA, GEMMA3], ids=lambda kind: kind.name)
def test_layers_in_four_bits(kind: Kind) -> None:
    model = kind.build()
    check(decoder_of(model, "q4gsw"), with_held_numbers(model, "q4gsw"), list(prompt(37)), 24)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 128, 129, 2000])
def test_prompts_of_every_length(length: int) -> None:
    """One id; a pass that is full, and one more; several passes of 128 rows."""
    model = GEMMA3.build()
    decoder = decoder_of(model, capacity=2100, prompt_rows=128)
    check(decoder, with_held_numbers(model), list(prompt(length)), 6)


def test_a_prompt_in_two_parts_is_one_prompt() -> None:
    model, ids = LLAMA.build(), list(prompt(50))
    decoder = decoder_of(model)
    decoder.prefill(ids)
    whole = decoder.logits()
    decoder.prefill([*ids[:20], 5, 5, 5])
    decoder.prefill(ids[20:45], keep=20)
    decoder.prefill(ids[45:], keep=45)
    assert decoder.length == 50
    exact, apart = logits_of(with_held_numbers(model), ids)
    assert np.abs(whole - exact[-1]).max() <= ORDERS * apart
    assert np.abs(decoder.logits() - exact[-1]).max() <= ORDERS * apart


def test_a_cache_in_half_precision() -> None:
    """Keys and values are rounded by 2⁻¹² of their size; logits move about as much."""
    model, ids = LLAMA.build(), list(prompt(64))
    decoder = decoder_of(model, cache="float16")
    decoder.prefill(ids)
    exact, apart = logits_of(with_held_numbers(model), ids)
    error = np.abs(decoder.logits() - exact[-1]).max()
    assert ORDERS * apart < error < 2**-8 * np.abs(exact[-1]).max()
    assert decoder.nbytes["cache"] * 2 == decoder_of(model).nbytes["cache"]


def test_text_ends_where_the_model_says_so() -> None:
    model, ids = LLAMA.build(), list(prompt(37))
    decoder = decoder_of(model)
    made = list(decoder.generate(ids, 24, end_of_text=()))
    end = made[11]
    first = made.index(end)
    for steps in (1, 4, 64):
        assert list(decoder.generate(ids, 24, end_of_text=[end], steps=steps)) == made[:first]
        assert decoder.length == len(ids) + first
    # transformers goes by the second where there are both; that of many a chat model lists more.
    model.config.eos_token_id, model.generation_config.eos_token_id = 2, [2, end]
    assert list(decoder_of(model).generate(ids, 24)) == made[:first]
    model.config.eos_token_id, model.generation_config.eos_token_id = end, None
    assert list(decoder_of(model).generate(ids, 24)) == made[:first]
    model.config.eos_token_id = None
    assert decoder_of(model).config.end_of_text == ()
    # The text goes on from the positions that are kept.
    more = decoder.generate(made[:first], 24 - first, keep=len(ids), end_of_text=())
    assert list(more) == made[first:]


def test_a_tied_model_shares_the_matrix_of_its_modules() -> None:
    model = LLAMA.build()
    weight = tie(model, 32).weight
    decoder = decoder_of(model)
    assert decoder.embedding is weight
    (resident,) = weight.residents
    assert "decoder" in resident.describe()
    ids = torch.tensor([list(prompt(9))])
    with torch.no_grad():
        model.lm_head(model.model.embed_tokens(ids))
    assert len(weight.residents) == 1
    assert decoder.nbytes["embedding and head"] == weight.nbytes
    decoder.prefill([1, 2, 3])
    shown = rich_tables.read(decoder)
    assert shown["embedding and head"][0] == f"{weight.nbytes:,} bytes"
    assert shown["positions"] == [f"3 of {decoder.capacity}"]
    assert shown["device"] == [decoder.context.adapter_summary]
    assert repr(decoder).startswith("Decoder(llama, 3 layers, 101×64, capacity ")


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    model, ids = LLAMA.build(), list(prompt(9))
    model.save_pretrained(tmp_path)
    want = list(decoder_of(model).generate(ids, 8, end_of_text=()))
    assert list(decoder_of(tmp_path).generate(ids, 8, end_of_text=())) == want


def test_a_folder_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    model, name = LLAMA.build(), "model.layers.1.mlp.up_proj.weight"
    state = model.state_dict()
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in state.items() if k != name})
    with pytest.raises(FormatError, match=rf"lacks tensors of the model: '{name}'$"):
        Decoder.from_hf(tmp_path)


def changed(**options: Any) -> Any:
    return LLAMA.build(**options)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=VOCAB)),
            "models of type 'gpt2': it runs llama, qwen2, qwen3, gemma2, gemma3_text",
        ),
        (changed(attention_bias=True), "no llama with attention_bias"),
        (changed(mlp_bias=True), "no llama with mlp_bias"),
        (changed(hidden_act="relu"), "with the activation 'relu'"),
        (changed(hidden_size=48, num_attention_heads=2, head_dim=16), "hidden is 48"),
        (changed(intermediate_size=40), "intermediate is 40"),
        (changed(head_dim=12), "heads · head_dim is 48"),
        (
            changed(rope_parameters={**LLAMA3, "rope_type": "yarn"}),
            "rotates heads as default, linear, llama3, not as 'yarn'",
        ),
    ],
    ids=["gpt2", "attention bias", "mlp bias", "relu", "hidden", "intermediate", "heads", "yarn"],
)
def test_other_models_are_refused_before_anything_is_on_the_device(
    model: Any, words: str, context: Any
) -> None:
    before = context.buffers_created
    with pytest.raises(FormatError, match=words):
        decoder_of(model)
    assert context.buffers_created == before


def test_what_is_no_language_model(tmp_path: Path) -> None:
    classifier: Any = LlamaForSequenceClassification
    for given in (None, LLAMA.build().config):
        with pytest.raises(TypeError, match="must be a model of transformers or the folder of one"):
            Decoder.from_hf(given)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="LlamaForSequenceClassification has no head that scores"):
        decoder_of(classifier(LlamaConfig(**SMALL)))
    for path in (tmp_path / "none", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            Decoder.from_hf(path)
    local = ["sliding_attention", "full_attention", "sliding_attention"]
    model = {kind.name: kind for kind in KINDS}["qwen2"].build(layer_types=local)
    with pytest.raises(FormatError, match="no sliding_window"):
        decoder_of(model)


def test_values_beyond_half_precision_are_refused_by_name() -> None:
    model = LLAMA.build()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4] = 1e5
    with pytest.raises(FormatError, match=r"layers\.1\.mlp\.down_proj has a value that float16"):
        decoder_of(model)


def test_a_group_that_the_kernels_cannot_read() -> None:
    with pytest.raises(FormatError, match="K and G multiples of 32 in the embedding, not 64 and 8"):
        Decoder.from_hf(LLAMA.build(), group_size=8)


@pytest.mark.parametrize("group_size", [32, 64])
def test_groups_of_the_embedding(group_size: int) -> None:
    model: Any = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.eval()
    decoder = decoder_of(model, group_size=group_size)
    assert decoder.embedding.group_size == group_size
    held = with_held_numbers(model)
    matrix = torch.from_numpy(
        Q4Weight.quantize(model.model.embed_tokens.weight, group_size).dequantize()
    )
    held.model.embed_tokens.weight.data.copy_(matrix)
    check(decoder, held, list(prompt(12)), 6)
