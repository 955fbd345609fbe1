"""`load_tied`: the tied matrix is found by names and configuration, read, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from tests.weight_files import TOKENS, assert_equal, random_floats, write_gguf
from wgpu_q4 import FormatError, Q4Weight, load_tied, save_file
from wgpu_q4.foreign import from_compressed_tensors, from_gptq, from_mlx
from wgpu_q4.foreign.checkpoint import widen

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MATRIX, OTHER = random_floats(16, 64), random_floats(16, 64, seed=1)
BODY = {"model.layers.0.mlp.weight": random_floats(8, 64)}
TIED: dict[str, Any] = {"tie_word_embeddings": True}


def folder(
    path: Path, tensors: dict[str, NDArray[Any]], config: dict[str, Any] | None = None
) -> Path:
    """Write a checkpoint as save_pretrained does."""
    safetensors.numpy.save_file({**BODY, **tensors}, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (EMBED, TIED),
        (EMBED, {}),
        ("transformer.wte.weight", {}),
        ("backbone.embeddings.weight", {}),
        ("gpt_neox.embed_in.weight", TIED),
        ("model.language_model.embed_tokens.weight", {"text_config": TIED}),
        ("bert.embeddings.word_embeddings.weight", {}),
    ],
)
def test_the_embedding_of_a_model_without_a_head(tmp_path: Path, name: str, config: Any) -> None:
    found = load_tied(folder(tmp_path, {name: MATRIX}, config))
    assert_equal(found, Q4Weight.quantize(MATRIX))
    assert_equal(load_tied(tmp_path / "model.safetensors"), found)


def test_options_of_quantizing_are_passed_on(tmp_path: Path) -> None:
    folder(tmp_path, {EMBED: MATRIX})
    importance, done = np.arange(1, 65), list[int]()
    found = load_tied(
        tmp_path, 16, "float32", rule="mse", importance=importance, progress=done.append
    )
    expected = Q4Weight.quantize(MATRIX, 16, "float32", rule="mse", importance=importance)
    assert_equal(found, expected)
    assert sum(done) == 16
    as_list = load_tied(tmp_path, 16, "float32", rule="mse", importance=importance.tolist())
    assert_equal(as_list, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_floats_of_every_code_are_read_exactly(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype))
    raw = np.arange(1 << 8 * kind.itemsize).astype(f"u{kind.itemsize}")
    names = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        expected = raw.view(kind).astype(np.float32)
        np.testing.assert_array_equal(widen(names[dtype])(raw).astype(np.float32), expected)


def test_sharded_checkpoints(tmp_path: Path) -> None:
    matrix = MATRIX.astype(ml_dtypes.bfloat16)
    files = {"model-00001-of-00002.safetensors": BODY, "b.safetensors": {EMBED: matrix}}
    for name, tensors in files.items():
        safetensors.numpy.save_file(tensors, tmp_path / name)
    listed = {tensor: name for name, tensors in files.items() for tensor in tensors}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": listed}))
    (tmp_path / "stray.safetensors").write_bytes(b"not in the index")
    assert_equal(load_tied(tmp_path), Q4Weight.quantize(matrix))
    for bad in ("../model.safetensors", "/etc/passwd", "", "..", 3):
        index.write_text(json.dumps({"weight_map": {EMBED: bad}}))
        with pytest.raises(FormatError, match=r"'weight_map' of .* must name files of this folder"):
            load_tied(tmp_path)


def test_heads(tmp_path: Path) -> None:
    folder(tmp_path, {EMBED: MATRIX, HEAD: OTHER}, {"tie_word_embeddings": False})
    with pytest.raises(FormatError, match=r"not tied: its embedding is 'model\.embed_tokens' and"):
        load_tied(tmp_path)
    for name in ("lm_head", HEAD):
        assert_equal(load_tied(tmp_path, name=name), Q4Weight.quantize(OTHER))
    folder(tmp_path, {EMBED: MATRIX, HEAD: OTHER}, {})
    with pytest.raises(FormatError, match="is not tied"):
        load_tied(tmp_path)
    folder(tmp_path, {EMBED: MATRIX, HEAD: MATRIX}, {})  # saved twice
    assert_equal(load_tied(tmp_path), Q4Weight.quantize(MATRIX))
    folder(tmp_path, {EMBED: MATRIX, HEAD: OTHER}, TIED)  # transformers ignores such a head
    assert_equal(load_tied(tmp_path), Q4Weight.quantize(MATRIX))
    folder(tmp_path, {EMBED: MATRIX}, {"tie_word_embeddings": False})
    with pytest.raises(FormatError, match="says tie_word_embeddings = false, and no head"):
        load_tied(tmp_path)


def test_several_embeddings(tmp_path: Path) -> None:
    vision = "vision.embed_tokens.weight"
    folder(tmp_path, {EMBED: MATRIX, vision: random_floats(9, 64)}, {"vocab_size": 16})
    assert_equal(load_tied(tmp_path), Q4Weight.quantize(MATRIX))
    folder(tmp_path, {EMBED: MATRIX, vision: OTHER}, {})
    with pytest.raises(FormatError, match=r"several embeddings, 'model\.embed_tokens', 'vision"):
        load_tied(tmp_path)
    assert_equal(load_tied(tmp_path, name=vision), Q4Weight.quantize(OTHER))
    folder(tmp_path, {EMBED: MATRIX, vision: MATRIX}, {})
    assert_equal(load_tied(tmp_path), Q4Weight.quantize(MATRIX))


# What is 4-bit already


def packed_words(weight: Q4Weight) -> NDArray[np.int32]:
    return weight.packed.view(np.int32)


WEIGHT = Q4Weight.quantize(MATRIX)


def test_matrices_of_tied_models_of_this_package(tmp_path: Path) -> None:
    tensors = {"weight_packed": WEIGHT.packed, "weight_scales": WEIGHT.scales}
    folder(tmp_path, {f"model.embed_tokens.{end}": array for end, array in tensors.items()}, TIED)
    assert_equal(load_tied(tmp_path), WEIGHT)
    save_file({"w": WEIGHT, "again": WEIGHT}, tmp_path / "own.safetensors")
    assert_equal(load_tied(tmp_path / "own.safetensors"), WEIGHT)
    save_file({"w": WEIGHT, "v": Q4Weight.quantize(OTHER)}, tmp_path / "own.safetensors")
    with pytest.raises(FormatError, match="holds 'w', 'v': give the name of one"):
        load_tied(tmp_path / "own.safetensors")
    assert_equal(load_tied(tmp_path / "own.safetensors", name="w"), WEIGHT)


def test_compressed_tensors(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "weight_packed": packed_words(WEIGHT),
        "weight_scale": WEIGHT.scales,
        "weight_shape": np.array([16, 64]),
    }
    folder(tmp_path, {f"model.embed_tokens.{end}": array for end, array in arrays.items()}, TIED)
    found = load_tied(tmp_path)
    assert_equal(found, from_compressed_tensors(**arrays))
    np.testing.assert_array_equal(found.dequantize(), WEIGHT.dequantize())
    with pytest.raises(FormatError, match="it is 4-bit already, in groups of 32: leave group_size"):
        load_tied(tmp_path, 16)


@pytest.mark.parametrize(("version", "stored"), [("gptq", 0x77777777), ("gptq_v2", 0x88888888)])
def test_gptq(tmp_path: Path, version: Any, stored: int) -> None:
    zeros = np.full((2, 2), stored, np.uint32).view(np.int32)
    words, scales = (np.ascontiguousarray(a.T) for a in (packed_words(WEIGHT), WEIGHT.scales))
    arrays: dict[str, Any] = {"qweight": words, "qzeros": zeros, "scales": scales}
    settings = {"quant_method": "gptq", "bits": 4, "checkpoint_format": version}
    tensors = {f"model.embed_tokens.{end}": array for end, array in arrays.items()}
    folder(tmp_path, tensors, {**TIED, "vocab_size": 16, "quantization_config": settings})
    found = load_tied(tmp_path)
    assert_equal(found, from_gptq(**arrays, checkpoint_format=version))
    np.testing.assert_array_equal(found.dequantize(), WEIGHT.dequantize())
    for other in ({"quant_method": "awq"}, {"quant_method": "gptq", "bits": 8}):
        folder(tmp_path, tensors, {**TIED, "quantization_config": other})
        with pytest.raises(FormatError, match=r"8 bits a value|'awq' in the config, is in no"):
            load_tied(tmp_path)


def test_mlx(tmp_path: Path) -> None:
    scales = WEIGHT.scales
    arrays: dict[str, Any] = {
        "weight": packed_words(WEIGHT).view(np.uint32),
        "scales": scales,
        "biases": -8 * scales,
    }
    tensors = {f"model.embed_tokens.{end}": array for end, array in arrays.items()}
    own = {"group_size": 64, "bits": 8, "model.embed_tokens": {"group_size": 32, "bits": 4}}
    folder(tmp_path, tensors, {**TIED, "quantization": own})
    found = load_tied(tmp_path)
    assert_equal(found, from_mlx(**arrays, group_size=32))
    np.testing.assert_array_equal(found.dequantize(), WEIGHT.dequantize())
    folder(
        tmp_path,
        {**tensors, "model.embed_tokens.biases": -7.5 * scales},
        {**TIED, "quantization": own},
    )
    with pytest.raises(FormatError, match=r"'model\.embed_tokens': q4gsw cannot hold this matrix"):
        load_tied(tmp_path)
    assert load_tied(tmp_path, lossy=True).shape == (16, 64)


def test_a_head_of_its_own_in_4_bits(tmp_path: Path) -> None:
    tensors = {EMBED: MATRIX, "lm_head.qweight": packed_words(WEIGHT)}
    folder(tmp_path, tensors, TIED)
    with pytest.raises(FormatError, match="but the head has a 4-bit matrix of its own"):
        load_tied(tmp_path)


def test_gguf(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {TOKENS: (MATRIX, None)})
    for path in (tmp_path, tmp_path / "m.gguf"):
        assert_equal(load_tied(path, 16, rule="mse"), Q4Weight.quantize(MATRIX, 16, rule="mse"))
    write_gguf(tmp_path / "m.gguf", {TOKENS: (MATRIX, None), "output.weight": (OTHER, None)})
    with pytest.raises(FormatError, match=r"is not tied: .* its head is 'output\.weight'"):
        load_tied(tmp_path)
    assert_equal(load_tied(tmp_path, name="output.weight"), Q4Weight.quantize(OTHER))
    write_gguf(tmp_path / "n.gguf", {TOKENS: (MATRIX, None)})
    with pytest.raises(FormatError, match=r"has the GGUF files of 2 models, m\.gguf, n\.gguf"):
        load_tied(tmp_path)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"has no safetensors file: give a folder with"):
        load_tied(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_tied(tmp_path / "none")
    (tmp_path / "bare").mkdir()
    safetensors.numpy.save_file({"x": MATRIX}, tmp_path / "bare" / "x.safetensors")
    for name in ("x", None):
        with pytest.raises(FormatError, match="It has no tensor of two dimensions whose name ends"):
            load_tied(tmp_path / "bare" / "x.safetensors", name=name)
    folder(tmp_path, {})
    with pytest.raises(FormatError, match="has no embedding by any of the names shared, embed_tok"):
        load_tied(tmp_path)
    with pytest.raises(FormatError, match=r"has no matrix 'w'\. It has 1: 'model\.layers"):
        load_tied(tmp_path, name="w")
    scaled: dict[str, Any] = {
        EMBED: MATRIX.astype(np.float16),
        "model.embed_tokens.weight_scale": np.ones(1),
    }
    folder(tmp_path, scaled)
    with pytest.raises(FormatError, match="it is F16 with 'weight_scale', a format that is not"):
        load_tied(tmp_path)
    folder(tmp_path, {"a.embed_tokens.weight_packed": packed_words(WEIGHT)})
    with pytest.raises(FormatError, match=r"'a\.embed_tokens': there is no tensor 'weight_scale'"):
        load_tied(tmp_path)
    for text, message in (("[1]", "must hold a JSON object, not a list"), ("{", "is not JSON")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(FormatError, match=message):
            load_tied(tmp_path)
