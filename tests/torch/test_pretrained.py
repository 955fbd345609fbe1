"""`save_pretrained` and `from_pretrained` of tied models."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.tiny_models import HIDDEN, IDS, VOCAB, build, every_family, llama
from wgpu_q4.errors import DeviceError, FormatError
from wgpu_q4.nn import Q4Config, QuantizedEmbedding, tie

EMBEDDING = "model.embed_tokens"
FILE = "model.safetensors"


@torch.no_grad()
def logits(model: Any, **more: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS, **more).logits
    return result


def tied(family: Callable[..., nn.Module] = llama, **options: Any) -> Any:
    model = build(family)
    tie(model, 8, **options)
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The checkpoint of ``tied()``."""
    tied().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@every_family
def test_comes_back_tied_with_the_same_logits(
    tmp_path: Path, family: Callable[..., nn.Module]
) -> None:
    model = tied(family)
    if family.__name__ == "gpt2":
        model.generation_config.max_length = 77
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert torch.equal(logits(loaded), logits(model))
    embedding, head = loaded.get_input_embeddings(), loaded.get_output_embeddings()
    assert embedding.weight is head.weight
    assert len(embedding.q4weight.residents) == 1
    assert loaded.generation_config == model.generation_config


def test_a_module_of_several_names_comes_back(tmp_path: Path) -> None:
    """T5 holds its embedding three times and its head once, and fills them by name."""
    sizes: dict[str, Any] = {"d_model": 40, "d_kv": 8, "d_ff": 48, "num_heads": 5, "num_layers": 1}
    t5: Any = T5ForConditionalGeneration
    model = tied(lambda: t5(T5Config(vocab_size=VOCAB, **sizes)))
    model.save_pretrained(tmp_path)
    loaded, info = t5.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    want = logits(model, decoder_input_ids=IDS)
    assert torch.equal(logits(loaded, decoder_input_ids=IDS), want)
    assert loaded.encoder.embed_tokens.weight is loaded.lm_head.weight


def test_the_file_holds_the_matrix_once_and_the_config_says_how(tmp_path: Path) -> None:
    model = tied(accuracy="fast", scales_dtype="float32")
    config = copy.deepcopy(model.config)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / FILE)
    assert sorted(name for name in state if not name.startswith("model.layers")) == [
        f"{EMBEDDING}.weight_packed",
        f"{EMBEDDING}.weight_scales",
        "model.norm.weight",
    ]
    assert torch.equal(state[f"{EMBEDDING}.weight_packed"], model.lm_head.weight_packed)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == {
        "quant_method": "wgpu_q4",
        "group_size": 8,
        "scales_dtype": "float32",
        "accuracy": "fast",
    }
    # The config may be that of other models as well.
    assert not hasattr(model.config, "quantization_config")
    assert model.config.to_dict() == {
        **config.to_dict(),
        **{name: getattr(model.config, name) for name in ("dtype", "architectures")},
    }
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.accuracy == "fast"
    assert loaded.lm_head.weight_scales.dtype == torch.float32


def test_shards(tmp_path: Path) -> None:
    model = tied()
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 4
    names = json.loads((tmp_path / f"{FILE}.index.json").read_text())["weight_map"]
    assert [name for name in names if name.startswith(("lm_head", EMBEDDING))] == [
        f"{EMBEDDING}.weight_packed",
        f"{EMBEDDING}.weight_scales",
    ]
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_another_dtype_the_matrix_stays_as_it_is(saved: Path, dtype: torch.dtype) -> None:
    loaded: Any = AutoModelForCausalLM.from_pretrained(saved, dtype=dtype)
    assert loaded.lm_head.q4weight.same_matrix(tied().lm_head.q4weight)
    assert logits(loaded).dtype == dtype
    assert loaded.float().dtype == torch.float32  # transformers forbids it to quantized bodies


def test_saves_again_and_over_what_it_was_loaded_from(saved: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(saved)
    loaded.save_pretrained(saved)
    for copied in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        copied.save_pretrained(saved)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(saved)), logits(tied()))


def test_a_given_state_dict_is_what_is_saved(tmp_path: Path) -> None:
    """transformers' Trainer and accelerate gather one."""
    model = tied()
    state = {**model.state_dict(), "model.norm.weight": torch.full([HIDDEN], 3.0)}
    for buffer in ("weight_packed", "weight_scales"):
        state[f"lm_head.{buffer}"] = state.pop(f"{EMBEDDING}.{buffer}")
    names = set(state)
    model.save_pretrained(tmp_path, state_dict=state)
    saved = load_file(tmp_path / FILE)
    assert torch.equal(saved["model.norm.weight"], state["model.norm.weight"])
    assert saved.keys() == model.state_dict().keys()
    assert set(state) == names


def test_ties_a_float_checkpoint_while_it_is_loaded(tmp_path: Path) -> None:
    build(llama).save_pretrained(tmp_path)
    config = Q4Config(8, torch.float32, "fast")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config)
    model = tied(scales_dtype="float32", accuracy="fast")
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.lm_head.accuracy == "fast"
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    loaded.save_pretrained(tmp_path / "q4")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "q4")
    assert torch.equal(logits(again), logits(model))


def test_refuses_before_loading_what_tie_refuses(tmp_path: Path) -> None:
    build(llama, tie_word_embeddings=False).save_pretrained(tmp_path)
    (tmp_path / FILE).write_bytes(b"never read")
    with pytest.raises(ValueError, match="are different matrices, not tied"):
        AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=Q4Config(8))
    with pytest.raises(DeviceError, match="no adapter is called"):
        AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=Q4Config(device="none"))


def test_models_without_the_head_read_the_embedding(saved: Path, tmp_path: Path) -> None:
    base = AutoModel.from_pretrained(saved)
    assert isinstance(base.embed_tokens, QuantizedEmbedding)
    with torch.no_grad():
        assert torch.equal(base(IDS).last_hidden_state, tied().model(IDS).last_hidden_state)
    classifier = AutoModelForSequenceClassification.from_pretrained(saved, num_labels=3)
    assert logits(classifier).shape == (len(IDS), 3)
    base.save_pretrained(tmp_path / "base")
    assert torch.equal(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base")), logits(tied())
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop(f"{EMBEDDING}.weight_scales"), "no model.embed_tokens.weight_sc"),
        (lambda state: state[f"{EMBEDDING}.weight_scales"].fill_(torch.inf), "must be finite"),
    ],
    ids=["missing", "not finite"],
)
def test_a_damaged_file_is_refused(saved: Path, change: Callable[[Any], Any], words: str) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(saved / FILE).items()}
    change(state)
    save_file(state, saved / FILE, {"format": "pt"})
    with pytest.raises(FormatError, match=words):
        AutoModelForCausalLM.from_pretrained(saved)


def test_a_matrix_of_another_shape_is_refused(saved: Path) -> None:
    """By transformers, and here if transformers is told to go on."""
    state = {**load_file(saved / FILE), f"{EMBEDDING}.weight_packed": torch.zeros(3, 20)}
    save_file(state, saved / FILE, {"format": "pt"})
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForCausalLM.from_pretrained(saved)
    with pytest.raises(FormatError, match="or one of another shape"):
        AutoModelForCausalLM.from_pretrained(saved, ignore_mismatched_sizes=True)


def test_settings_of_a_later_version_are_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["quantization_config"]["zero_points"] = True
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has zero_points, which this version of wgpu_q4"):
        AutoModelForCausalLM.from_pretrained(saved)


def test_settings_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="accuracy must be one of exact, fast, int8"):
        Q4Config(accuracy="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scales_dtype must be one of"):
        Q4Config(scales_dtype="int8")
    with pytest.raises(FormatError, match="group_size must be a positive multiple of 8, not 12"):
        Q4Config(12)
    with pytest.raises(TypeError, match="group_size must be an int, not str"):
        Q4Config("32")  # type: ignore[arg-type]


def test_a_body_that_something_else_has_quantized_is_not_saved(tmp_path: Path) -> None:
    model = tied()
    model.config.quantization_config = {"quant_method": "torchao"}
    with pytest.raises(NotImplementedError, match="one quantization per checkpoint"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    assert model.config.quantization_config == {"quant_method": "torchao"}
