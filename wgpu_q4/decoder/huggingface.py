"""The weights of a decoder from a model of transformers."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import to_numpy
from wgpu_q4.decoder.config import Config, Rope, RopeType
from wgpu_q4.decoder.families import Family, family_of
from wgpu_q4.decoder.weights import Body, Floats, LayerMatrix, LayerWeights, Weights, stack, to_half
from wgpu_q4.errors import FormatError
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}


def weights_of_model(
    source: PreTrainedModel | str | os.PathLike[str], body: Body, group_size: int
) -> Weights:
    """Return the weights of a model, which must stay as it is until they are used.

    Args:
        source: a model for causal language modelling, or the folder of one.
        body: the type of the layers' matrices.
        group_size: G of what is quantized.

    Raises:
        FormatError: a model of another family, or with a part that the decoder does not run, or a
            folder that lacks a tensor.
        ImportError: transformers is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        try:
            from transformers import AutoConfig, AutoModelForCausalLM
        except ImportError as error:
            raise ImportError(
                "a folder of Hugging Face's is read with transformers: pip install 'wgpu_q4[hf]'"
            ) from error

        if (isinstance(source, os.PathLike) or os.path.isabs(source)) and not os.path.isdir(source):
            raise FileNotFoundError(errno.ENOENT, "no such folder", os.fspath(source))
        family_of(AutoConfig.from_pretrained(source).model_type)  # before gigabytes are read
        # transformers makes up numbers for a tensor that is missing, and only warns.
        read: Any = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True)
        loaded: Any = read[0]
        if read[1]["missing_keys"]:
            first, *more = sorted(read[1]["missing_keys"])
            others = f" and {len(more)} others" if more else ""
            raise FormatError(f"{source} lacks tensors of the model: {first!r}{others}")
    else:
        loaded = source
    if not (hasattr(loaded, "config") and hasattr(loaded, "state_dict")):
        raise TypeError(
            f"model must be a model of transformers or the folder of one, not "
            f"{type(loaded).__name__}"
        )
    config = config_of_model(loaded.config).with_end_of_text(*_end_of_text(loaded))
    if loaded.get_output_embeddings() is None:
        raise FormatError(f"{type(loaded).__name__} has no head that scores the next id")
    return _Reader(loaded, config, body, group_size).weights()


def _end_of_text(model: Any) -> tuple[int, ...]:
    """Return the ids that end a text: those by which transformers generates, if they are known.

    The configuration of many a chat model names the end of a document alone.
    """
    for source in (getattr(model, "generation_config", None), model.config):
        end = getattr(source, "eos_token_id", None)
        if end is not None:
            return tuple(np.asarray(to_numpy(end, "eos_token_id")).reshape(-1).tolist())
    return ()


def config_of_model(given: Any) -> Config:
    """Return the shape of a decoder from a model's configuration.

    Raises:
        FormatError: a model of another family, or with a part that the decoder does not run.
    """
    family = family_of(str(getattr(given, "model_type", "")))
    _refuse_parts(given)
    layers, heads = int(given.num_hidden_layers), int(given.num_attention_heads)
    head_dim = int(getattr(given, "head_dim", None) or given.hidden_size // heads)
    activation = getattr(given, "hidden_activation", None) or given.hidden_act
    if _ACTIVATIONS.get(activation) != family.activation:
        raise FormatError(f"the decoder runs no {family.name} with the activation {activation!r}")
    kinds = list(getattr(given, "layer_types", None) or ["full_attention"] * layers)
    for kind in sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        raise FormatError(f"the decoder has no layers of type {kind!r}")
    local = [kind == "sliding_attention" for kind in kinds]
    if any(local) and given.sliding_window is None:
        raise FormatError("the model has layers of type 'sliding_attention' and no sliding_window")
    ropes = _ropes(given)
    scalar = getattr(given, "query_pre_attn_scalar", None)
    return Config(
        family=family.name,
        layers=layers,
        hidden=int(given.hidden_size),
        heads=heads,
        kv_heads=int(getattr(given, "num_key_value_heads", None) or heads),
        head_dim=head_dim,
        intermediate=int(given.intermediate_size),
        vocab=int(given.vocab_size),
        epsilon=float(given.rms_norm_eps),
        activation=family.activation,
        qkv_bias=family.qkv_bias,
        head_norm=family.head_norm,
        post_norms=family.post_norms,
        embedding_factor=float(np.sqrt(given.hidden_size)) if family.root_embedding else 1.0,
        query_factor=float(scalar if scalar is not None else head_dim) ** -0.5,
        score_cap=given.attn_logit_softcapping if family.score_cap else None,
        logit_cap=getattr(given, "final_logit_softcapping", None),
        windows=tuple(int(given.sliding_window) if is_local else 0 for is_local in local),
        ropes=tuple(ropes.values()),
        rope_of_layer=tuple(list(ropes).index(kind) if kind in ropes else 0 for kind in kinds),
        positions=int(given.max_position_embeddings),
        end_of_text=(),
    )


def _refuse_parts(given: Any) -> None:
    """Raise for what other models of these families have and the decoder does not."""
    for name in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        if getattr(given, name, False):
            raise FormatError(f"the decoder runs no {given.model_type} with {name}")


def _ropes(given: Any) -> dict[str, Rope]:
    """Return the ways to rotate heads, by the type of the layers that they are for."""
    parameters: Mapping[str, Any] = given.rope_parameters
    if "rope_theta" in parameters:
        return {"full_attention": _rope(parameters)}
    return {kind: _rope(found) for kind, found in parameters.items()}


def _rope(given: Mapping[str, Any]) -> Rope:
    kind = str(given.get("rope_type", "default"))
    if kind not in get_args(RopeType):
        known = ", ".join(get_args(RopeType))
        raise FormatError(f"the decoder rotates heads as {known}, not as {kind!r}")
    if given.get("partial_rotary_factor", 1.0) != 1.0:
        raise FormatError("the decoder rotates whole heads: partial_rotary_factor must be 1")
    return Rope(
        float(given["rope_theta"]),
        cast(RopeType, kind),
        float(given.get("factor", 1.0)),
        float(given.get("low_freq_factor", 1.0)),
        float(given.get("high_freq_factor", 4.0)),
        int(given.get("original_max_position_embeddings", 8192)),
    )


class _Reader:
    """The parameters of a model, by name, made into what the decoder holds."""

    def __init__(self, model: Any, config: Config, body: Body, group_size: int) -> None:
        self._model, self._config, self._body, self._group = model, config, body, group_size
        self._family: Family = family_of(config.family)
        self._parameters: Mapping[str, Any] = model.state_dict()

    def weights(self) -> Weights:
        """Return all of them; layers are read when they are asked for."""
        embedding = _q4_matrix(self._model.get_input_embeddings())
        if embedding is None:
            embedding = Q4Weight.quantize(self._floats("model.embed_tokens.weight"), self._group)
        head = None
        if not self._model.config.tie_word_embeddings:
            head = _q4_matrix(self._model.get_output_embeddings())
            if head is None:
                head = Q4Weight.quantize(self._floats("lm_head.weight"), self._group)
        return Weights(
            config=self._config,
            embedding=embedding,
            head=None if head is embedding else head,
            final_gain=self._gain("model.norm"),
            layer=self._layer,
        )

    def _layer(self, number: int) -> LayerWeights:
        at = f"model.layers.{number}."
        qkv = [f"{at}self_attn.{name}_proj" for name in "qkv"]
        bias = head_gains = None
        if self._config.qkv_bias:
            bias = np.concatenate([self._floats(f"{name}.bias") for name in qkv])
        if self._config.head_norm:
            names = (f"{at}self_attn.q_norm", f"{at}self_attn.k_norm")
            head_gains = np.stack([self._gain(name) for name in names])
        post = self._config.post_norms
        before_unit = "pre_feedforward_layernorm" if post else "post_attention_layernorm"
        return LayerWeights(
            qkv=self._matrix(*qkv),
            output=self._matrix(f"{at}self_attn.o_proj"),
            gate_up=self._matrix(f"{at}mlp.gate_proj", f"{at}mlp.up_proj"),
            down=self._matrix(f"{at}mlp.down_proj"),
            attention_gain=self._gain(f"{at}input_layernorm"),
            unit_gain=self._gain(f"{at}{before_unit}"),
            qkv_bias=bias,
            head_gains=head_gains,
            post_attention_gain=self._gain(f"{at}post_attention_layernorm") if post else None,
            post_unit_gain=self._gain(f"{at}post_feedforward_layernorm") if post else None,
        )

    def _matrix(self, *names: str) -> LayerMatrix:
        floats = [self._floats(f"{name}.weight") for name in names]
        if self._body == "q4gsw":
            return stack([Q4Weight.quantize(part, self._group) for part in floats])
        return stack([to_half(part, name) for part, name in zip(floats, names, strict=True)])

    def _gain(self, name: str) -> Floats:
        gain = self._floats(f"{name}.weight")
        return gain + np.float32(1) if self._family.one_plus else gain

    def _floats(self, name: str) -> Floats:
        found = self._parameters.get(name)
        if found is None:
            raise FormatError(f"the model has no parameter {name!r}")
        values: NDArray[Any] = to_numpy(found.detach().float().cpu(), name)
        return values.astype(np.float32, copy=False)


def _q4_matrix(module: Any) -> Q4Weight | None:
    """Return the matrix of a module that `wgpu_q4.nn` has put into a model."""
    found = getattr(module, "q4weight", None)
    return found if isinstance(found, Q4Weight) else None
