"""A decoder from a GGUF file, against transformers on the same file."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from tests.tiny_decoders import KINDS, LLAMA3, ORDERS, Kind, logits_of, prompt
from wgpu_q4 import FormatError, Q4Weight, embedding
from wgpu_q4.decoder import AffineMatrix, Decoder, Rope
from wgpu_q4.decoder.gguf import weights_of_file

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}
BY_NAME = {kind.name: kind for kind in KINDS}
Q4_0 = gguf.GGMLQuantizationType.Q4_0


def pair_by_pair(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of queries or keys as GGUF files of Llama hold them."""
    return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def write(
    path: Path,
    kind: Kind,
    types: dict[str, gguf.GGMLQuantizationType] | None = None,
    extra: dict[str, NDArray[Any]] | None = None,
    **options: Any,
) -> Any:
    """Write a model as llama.cpp's converter does, and return it.

    ``types`` are those of matrices, by a part of their names there; others are float16.
    """
    model = kind.build(**options)
    config, name = model.config, kind.name.partition(",")[0]
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_eos_token_id(7)
    if name.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if name == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    names = gguf.get_tensor_name_map(ARCHITECTURES[name], config.num_hidden_layers)
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, end = key.rpartition(".")
        target = f"{names.get_name(stem)}.{end}"
        values = value.float().numpy()
        if name.startswith("gemma") and value.dim() == 1:
            values = values + 1
        if name == "llama" and "attn_q." in target:
            values = pair_by_pair(values, config.num_attention_heads)
        if name == "llama" and "attn_k." in target:
            values = pair_by_pair(values, config.num_key_value_heads)
        wanted = [type_ for part, type_ in (types or {}).items() if part in target]
        if value.dim() == 1:
            writer.add_tensor(target, values)
        elif wanted:
            writer.add_tensor(target, gguf.quantize(values, wanted[0]), raw_dtype=wanted[0])
        else:
            writer.add_tensor(target, values.astype(np.float16))
    for target, values in (extra or {}).items():
        writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def read_plainly(path: Path) -> Any:
    """The model that transformers makes of a file, as one that may be in float64 too."""
    loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    config = copy.deepcopy(loaded.config)
    del config.quantization_config
    model: Any = type(loaded)(config)
    model.eval()
    model.load_state_dict(loaded.state_dict())
    return model


def read(path: Path) -> Any:
    """The model that transformers makes of a file, with its embedding as the decoder holds it."""
    model = read_plainly(path)
    for name, value in model.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name:
            value.copy_(torch.from_numpy(Q4Weight.quantize(value, 32).dequantize()))
    return model


def check(decoder: Decoder, model: Any) -> None:
    ids = list(prompt(21))
    made = list(decoder.generate(ids, 12, end_of_text=()))
    exact, apart = logits_of(model, [*ids, *made])
    assert made == exact[len(ids) - 1 : -1].argmax(-1).tolist()
    assert np.abs(decoder.logits() - exact[-2]).max() <= ORDERS * apart


@pytest.mark.parametrize("name", ["llama", "untied", "qwen2", "qwen3"])
def test_a_file_is_the_model_that_transformers_reads(name: str, tmp_path: Path) -> None:
    kind = BY_NAME[name]
    kind = Kind("llama", kind.model, kind.config, kind.options) if name == "untied" else kind
    head_dim = 128 if name == "qwen3" else 16  # what transformers takes for granted
    write(tmp_path / "model.gguf", kind, head_dim=head_dim)
    decoder = Decoder.from_gguf(tmp_path / "model.gguf", cache="float32", capacity=64)
    assert decoder.config.end_of_text == (7,)
    check(decoder, read(tmp_path / "model.gguf"))


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_files_of_gemma_leave_out_which_layers_are_local(name: str, tmp_path: Path) -> None:
    """transformers does not read it either: it takes the pattern of the model class."""
    every = {"gemma2": 2, "gemma3": 6}[name]
    kinds = ["full_attention" if i % every == every - 1 else "sliding_attention" for i in range(7)]
    model = write(
        tmp_path / "model.gguf",
        BY_NAME[name],
        num_hidden_layers=7,
        layer_types=kinds,
        query_pre_attn_scalar=16,
    )
    decoder = Decoder.from_gguf(tmp_path / "model.gguf", cache="float32", capacity=64)
    assert [window > 0 for window in decoder.config.windows] == [k[0] == "s" for k in kinds]
    for key, parameter in model.named_parameters():  # a tied matrix once
        value = parameter.data
        if "embed_tokens" in key:
            held = Q4Weight.quantize(value.half().float(), 32).dequantize()
            value.copy_(torch.from_numpy(held))
        elif value.dim() == 2:
            value.copy_(value.half().float())
    check(decoder, model)


def test_four_bits_of_the_file_stay_as_they_are(tmp_path: Path) -> None:
    """Rows of Q4_0 are only put in another order; a fused matrix with another part is float16."""
    path = tmp_path / "model.gguf"
    other = gguf.GGMLQuantizationType.Q8_0
    types = {"attn_v.": other, "token_embd": Q4_0, "attn_": Q4_0, "ffn_": Q4_0}
    kind = BY_NAME["llama"]
    write(path, kind, types)
    layer = weights_of_file(path).layer(1)
    assert isinstance(layer.qkv, np.ndarray)
    assert isinstance(layer.gate_up, Q4Weight)
    held = read_plainly(path).state_dict()
    stacked = torch.cat([held[f"model.layers.1.mlp.{part}_proj.weight"] for part in ("gate", "up")])
    assert np.array_equal(layer.gate_up.dequantize(), stacked.numpy())

    write(path, kind, {**types, "attn_v.": Q4_0})
    layer = weights_of_file(path).layer(1)
    assert isinstance(layer.qkv, Q4Weight)
    decoder = Decoder.from_gguf(path, cache="float32", capacity=64)
    model = read_plainly(path)
    check(decoder, model)
    rows = embedding(np.array([5, 9]), decoder.embedding)
    assert np.array_equal(rows, model.model.embed_tokens.weight[[5, 9]].detach().numpy())


@pytest.mark.parametrize("name", ["Q4_1", "Q8_0"])
def test_blocks_with_offsets_stay_as_they_are(name: str, tmp_path: Path) -> None:
    """Rows of heads are put in another order; a matrix of another type stays apart."""
    path, kind = tmp_path / "model.gguf", gguf.GGMLQuantizationType[name]
    bits = {"Q4_1": "affine4", "Q8_0": "affine8"}
    write(path, BY_NAME["llama"], {"token_embd": Q4_0, "attn_": kind, "ffn_": kind})
    model = read_plainly(path)
    layer, held = weights_of_file(path).layer(1), model.state_dict()
    assert isinstance(layer.qkv, AffineMatrix)
    parts = [held[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert np.array_equal(layer.qkv.dequantize(), torch.cat(parts).numpy())
    decoder = Decoder.from_gguf(path, cache="float32", capacity=64)
    assert decoder.layer_types == (bits[name],)
    check(decoder, model)

    write(path, BY_NAME["llama"], {"attn_k.": Q4_0, "ffn_down": Q4_0, "attn_": kind, "ffn_": kind})
    decoder = Decoder.from_gguf(path, cache="float32", capacity=64)
    assert set(decoder.layer_types) == {bits[name], "q4gsw", "float16"}
    assert decoder.layer_types[0] == bits[name]


def test_divisors_of_frequencies(tmp_path: Path) -> None:
    """Files of Llama 3 list what transformers computes from the configuration."""
    plain, scaled = Rope(5e5).frequencies(16), BY_NAME["llama 3"].build()
    scaled = scaled.model.rotary_emb.inv_freq.numpy()
    path, kind = tmp_path / "model.gguf", BY_NAME["llama 3"]
    kind = Kind("llama", kind.model, kind.config, kind.options)
    model = write(path, kind, extra={"rope_freqs.weight": plain / scaled})
    assert model.config.rope_parameters["factor"] == LLAMA3["factor"]
    decoder = Decoder.from_gguf(path, cache="float32", capacity=64)
    held = read(path)
    model.load_state_dict(held.state_dict())
    check(decoder, model)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(FormatError, match="models of type 'mamba': it runs llama, qwen2, qwen3"):
        Decoder.from_gguf(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="not a whole GGUF file"):
        Decoder.from_gguf(path)


def test_without_the_gguf_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model.gguf", BY_NAME["llama"])
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'wgpu_q4\[hf\]'"):
        weights_of_file(tmp_path / "model.gguf")
    with pytest.raises(FileNotFoundError):  # which no library would mend
        weights_of_file(tmp_path / "missing.gguf")


def test_a_tensor_that_the_decoder_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, BY_NAME["llama"], extra={"blk.1.attn_q.bias": np.zeros(64, np.float32)})
    with pytest.raises(FormatError, match=r"does not know the tensor 'blk\.1\.attn_q\.bias'"):
        Decoder.from_gguf(path)


def cut(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values[:-32]


TENSORS: dict[str, Any] = {
    "attn_q.weight": cut,
    "attn_k.weight": cut,
    "attn_v.weight": lambda values: np.concatenate([values, values]),
    "attn_output.weight": lambda values: np.concatenate([values, values], -1),
    "ffn_down.weight": cut,
    "ffn_gate.weight": cut,
    "ffn_up.weight": np.transpose,
    "attn_norm.weight": cut,
    "output_norm.weight": lambda values: values[:0],
    "ffn_norm.weight": lambda values: values.reshape(1, -1),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_of_another_shape_than_the_metadata_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """It would be read as a model that nobody trained, or leave a buffer too short."""
    add = gguf.GGUFWriter.add_tensor

    def changed(writer: Any, target: str, values: Any, *rest: Any, **named: Any) -> None:
        add(writer, target, TENSORS[name](values) if name in target else values, *rest, **named)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", changed)
    write(tmp_path / "model.gguf", BY_NAME["llama"])
    before = context.buffers_created
    with pytest.raises(FormatError, match=rf"tensor '.*{name}' has shape .* the metadata says"):
        Decoder.from_gguf(tmp_path / "model.gguf")
    assert context.buffers_created == before


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("block_count", 2**31 - 1, "an integer in 1 … 16777216, not 2147483647"),
        ("block_count", 7, r"no tensor 'blk\.3\.attn_q\.weight'"),
        ("attention.head_count", 2.5, "an integer in 1 … 16777216, not 2.5"),
        ("attention.head_count", 0, "an integer in 1"),
        ("attention.head_count_kv", 1, r"attn_k\.weight' has shape \[32, 64\].* says \[16, 64\]"),
        ("context_length", 0, "context_length must be an integer in 1"),
        ("rope.freq_base", 0.0, "theta must be finite, and above 0"),
        ("attention.layer_norm_rms_epsilon", float("nan"), "epsilon must be finite"),
    ],
)
def test_metadata_that_no_model_has(
    key: str, value: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf.GGUFWriter.add_key_value

    def changed(writer: Any, name: str, given: Any, kind: Any, *rest: Any, **named: Any) -> None:
        if name == f"llama.{key}":
            given = value
            kind = getattr(gguf.GGUFValueType, "INT32" if isinstance(value, int) else "FLOAT32")
        add(writer, name, given, kind, *rest, **named)

    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", changed)
    write(tmp_path / "model.gguf", BY_NAME["llama"])
    with pytest.raises(FormatError, match=words):
        Decoder.from_gguf(tmp_path / "model.gguf")


def test_a_type_of_tensor_that_gguf_does_not_dequantize(tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.F64
    write(tmp_path / "model.gguf", BY_NAME["llama"], extra={"rope_freqs.weight": np.ones(8)})
    with pytest.raises(FormatError, match=f"tensors of type {kind.name} are not read"):
        Decoder.from_gguf(tmp_path / "model.gguf")
