"""Small models of any architecture: its default config with the sizes reduced, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from tools.architectures.sizes import HEAD_DIM, HEADS, LAYERS, RULES, SPECIAL, VOCAB

MOST_PARAMETERS = 60_000_000
_NOT_GIVEN = ("transformers_version", "architectures", "dtype", "per_layer_config", "_name_or_path")
_TOKENS = r".*(token_id|token_index|token_ids|token)s?"


class NotSmall(Exception):
    """A model that `RULES` leave large."""


def small_model(kind: Any) -> Any:
    """Return a small model of a class of transformers: random weights, in eval mode.

    Its embeddings are tied where its config has a say.

    Raises:
        NotSmall: it would have more than `MOST_PARAMETERS`.
    """
    if hasattr(kind, "from_encoder_decoder_pretrained"):
        config = _wrapped(kind.config_class)
    else:
        config = small_config(kind.config_class)
    with torch.device("meta"):
        outline = kind(config)
    sizes = sorted(((p.numel(), name) for name, p in outline.named_parameters()), reverse=True)
    count = sum(size for size, _ in sizes)
    if count > MOST_PARAMETERS:
        raise NotSmall(f"{count:,} parameters, {sizes[0][0]:,} of them in {sizes[0][1]}")
    torch.manual_seed(0)
    return kind(config).eval()


def small_config(kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    """Return a config of a kind with small sizes, and tied embeddings if it allows them."""
    values = _reduced(kind().to_dict())
    try:
        return kind(**values)
    except Exception as error:  # transformers and the validators of its configs have several kinds
        if "tie_word_embeddings" not in str(error):
            raise
        return kind(**{**values, "tie_word_embeddings": False})


def _wrapped(kind: Any) -> Any:
    """Return the config of an encoder and a decoder of two architectures."""
    encoders = {"speech-encoder-decoder": "wav2vec2", "vision-encoder-decoder": "vit"}
    encoder = small_config(type(AutoConfig.for_model(encoders.get(kind.model_type, "bert"))))
    decoder = small_config(type(AutoConfig.for_model("bert")))
    return kind.from_encoder_decoder_configs(encoder, decoder)


def _reduced(values: dict[str, Any]) -> dict[str, Any]:
    former = values.get("num_hidden_layers") or values.get("num_layers")
    layers = LAYERS
    if isinstance(values.get("layer_types"), list):  # one layer of each kind
        kinds = list(dict.fromkeys(values["layer_types"]))
        layers = max(LAYERS, len(kinds))
        values["layer_types"] = (kinds + kinds[-1:] * layers)[:layers]
    ids = iter(range(4, VOCAB))
    reduced = {}
    for name, value in values.items():
        if name in _NOT_GIVEN:
            continue
        if isinstance(value, list) and len(value) == former and former > max(LAYERS, 4):
            value = value[:layers]  # a value for each layer
        reduced[name] = _value(name, value, ids)
    if isinstance(former, int) and "num_hidden_layers" in reduced:
        reduced["num_hidden_layers"] = min(former, layers)
    for name in values:
        if "key_value" in name and values[name] == values.get(
            name.replace("key_value", "attention")
        ):
            reduced[name] = HEADS
    reduced.update(SPECIAL.get(values.get("model_type", ""), {}))
    return reduced


def _value(name: str, value: Any, ids: Iterator[int]) -> Any:
    """Return what stands for one value of a config."""
    if name == "tie_word_embeddings":
        return True
    if isinstance(value, dict):
        if name in ("rope_parameters", "rope_scaling"):
            return _rope(value)
        return _reduced(value) if "model_type" in value else value
    if value is None:
        return {"head_dim": HEAD_DIM, "num_key_value_heads": HEADS}.get(name)
    if re.fullmatch(_TOKENS, name):
        return _token(value, ids)
    if isinstance(value, list) and all(type(each) is int for each in value):
        return [_size(name, each) for each in value]
    return _size(name, value) if type(value) is int else value


def _size(name: str, value: int) -> int:
    limits = (limit for pattern, limit in RULES if re.fullmatch(pattern, name))
    return min(value, next(limits, value))


def _token(value: Any, ids: Iterator[int]) -> Any:
    """Return ids inside the small vocabulary, each another one."""
    if isinstance(value, list):
        return [_token(each, ids) for each in value]
    return next(ids) if type(value) is int and value >= VOCAB else value


def _rope(values: dict[str, Any]) -> dict[str, Any]:
    """Return rotary parameters for heads of `HEAD_DIM`."""
    changed = {}
    for name, value in values.items():
        if isinstance(value, dict):
            value = _rope(value)
        elif name == "mrope_section":
            rotated = int(HEAD_DIM * (values.get("partial_rotary_factor") or 1)) // 2
            value = [each * rotated // sum(value) for each in value]
            value[0] += rotated - sum(value)
        elif name in ("short_factor", "long_factor"):
            value = value[: HEAD_DIM // 2]
        changed[name] = value
    return changed
