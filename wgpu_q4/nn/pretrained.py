"""Checkpoints of tied models, through the quantizers of transformers.

A checkpoint holds the packed matrix and its scales once, under the name of the input embedding, and
the rest of the model as it is.  ``config.json`` says how the matrix is held, in `Q4Config`.

The float matrix is never made when such a checkpoint is loaded.  The packed one is mapped, and read
as it is used.  Loading a 131072 × 512 matrix, 36 MiB packed and 256 MiB in float32, adds 13 MiB to
the process; with the first logits it is 104 MiB on an adapter whose memory is the host's
(``tests/torch/test_loading_memory.py``).

Requires transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from wgpu_q4.arrays import DTypeLike, float_dtype
from wgpu_q4.errors import FormatError
from wgpu_q4.format.shape import check_multiple
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.modules import QuantizedLinear
from wgpu_q4.nn.places import Places, find_places
from wgpu_q4.nn.shared import BUFFERS, Quantized
from wgpu_q4.nn.tying import put_in, tie
from wgpu_q4.ops.arguments import check_option
from wgpu_q4.ops.several import contexts_for, upload
from wgpu_q4.weight import Q4Weight

QUANT_METHOD = "wgpu_q4"
_SAVED = ("group_size", "scales_dtype", "accuracy")
"""The settings that ``config.json`` holds.  A device is of one machine, and stays out."""


@register_quantization_config(QUANT_METHOD)
class Q4Config(QuantizationConfigMixin):
    """How the tied matrix of a model is held in 4 bits: the arguments of `tie`.

    ``from_pretrained(name, quantization_config=Q4Config())`` loads a float checkpoint and ties the
    model.  A checkpoint that is 4-bit already carries its own settings.  transformers uses those,
    and warns that it ignores what it is given, ``device`` too; the environment variable
    ``WGPU_Q4_ADAPTER`` chooses the device then.

    Args:
        group_size: ``G``, a multiple of 8 that divides the hidden size.
        scales_dtype: float16 or float32, as numpy or torch write it.
        accuracy: of the head, ``"exact"``, ``"fast"`` or ``"int8"``, as in `wgpu_q4.linear`.
        device: as in `wgpu_q4.embedding`; the default device if None.  It is not saved.

    Raises:
        TypeError: ``group_size`` is not an integer.
        ValueError: an accuracy or a dtype that does not exist, or (as `FormatError`) a
            ``group_size`` that is no multiple of 8.
    """

    def __init__(
        self,
        group_size: int = 32,
        scales_dtype: DTypeLike = "float16",
        accuracy: Accuracy = "exact",
        device: Any = None,
    ) -> None:
        self.quant_method = QUANT_METHOD  # type: ignore[assignment]
        check_multiple(group_size)
        self.group_size = group_size
        self.scales_dtype = float_dtype("scales_dtype", scales_dtype)
        self.accuracy: Accuracy = check_option("accuracy", accuracy, get_args(Accuracy))
        self.device = device

    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Return the settings that ``config.json`` holds.

        Raises:
            ValueError: a setting that this version does not know.
        """
        unknown = sorted(config_dict.keys() - {"quant_method", *_SAVED})
        if unknown:
            raise ValueError(
                f"the checkpoint's quantization_config has {', '.join(unknown)}, which this "
                f"version of wgpu_q4 does not know; it knows {', '.join(_SAVED)}"
            )
        config = cls(**{name: config_dict[name] for name in _SAVED if name in config_dict})
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """Return what ``config.json`` holds."""
        return {"quant_method": QUANT_METHOD, **{name: getattr(self, name) for name in _SAVED}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Q4Config:
        return Q4Config(self.group_size, self.scales_dtype, self.accuracy, self.device)


@register_quantizer(QUANT_METHOD)
class Q4Quantizer(HfQuantizer):
    """Loads and saves the 4-bit matrix; transformers makes and calls it."""

    quantization_config: Q4Config

    def __init__(
        self,
        quantization_config: Q4Config,
        state_dict: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(quantization_config, **kwargs)
        self._state_dict = state_dict
        self._places: Places | None = None

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Raise `DeviceError` before anything is loaded if there is no such device."""
        contexts_for(self.quantization_config.device)

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        """Make room for the packed matrix where the model, still without values, has the float one.

        A float checkpoint is loaded as it is.  The model is checked here all the same: what `tie`
        refuses need not be loaded.
        """
        if not self.pre_quantized:
            find_places(model, loaded=False)
            return model
        self._places = places = find_places(model, loaded=False, headless=True)
        config = self.quantization_config
        waiting = {module: _Waiting(module, config, matrix=False) for module in places.scales}
        stand_ins = {name: waiting[module] for name, module in places.modules.items()}
        embedding = places.modules[places.first_name]
        stand_ins[places.first_name] = _Waiting(embedding, config, matrix=True)
        places.put(stand_ins)
        places.forget_ties()
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        """Put the modules that read the loaded matrix where it waited, or tie the float model."""
        config, places = self.quantization_config, self._places
        if places is None:
            tie(
                model,
                config.group_size,
                scales_dtype=config.scales_dtype,
                device=config.device,
                accuracy=config.accuracy,
            )
        else:
            weight = _loaded(model, places.first_name)
            upload(weight, config.device)  # fails here if it is too large
            for name, module in places.modules.items():
                if "bias" in module._parameters:
                    module._parameters["bias"] = model.get_submodule(name).bias
            places.put(places.modules)
            put_in(places, weight, config.device, config.accuracy)
            self._places = None
        # The body is a float model: half(), float() and training are as for any other.  Saving
        # makes a quantizer of its own.
        model.is_quantized = False
        del model.hf_quantizer
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_compileable(self) -> bool:
        return True

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Return a state dict that names the matrix once, under the input embedding."""
        state = dict(model.state_dict() if self._state_dict is None else self._state_dict)
        embedding = model.get_input_embeddings()
        named = model.named_modules(remove_duplicate=False)
        names = [name for name, module in named if _are_tied(module, embedding)]
        names.sort(key=lambda name: model.get_submodule(name) is not embedding)
        for buffer in BUFFERS:
            keys = [f"{name}.{buffer}" for name in names]
            found = [state.pop(key) for key in keys if key in state]
            if found:
                state[keys[0]] = found[0]
        return state, {}


def _are_tied(module: nn.Module, other: nn.Module) -> bool:
    return (
        isinstance(module, Quantized)
        and isinstance(other, Quantized)
        and module._holder is other._holder
    )


class _Waiting(nn.Module):
    """Stands where a module was that held the tied matrix; its bias, if any, is loaded.

    Args:
        module: what stood there, without values.
        matrix: whether this is the place for which the 4-bit matrix, ``config``'s, is loaded.
    """

    bias: nn.Parameter | None

    def __init__(self, module: Any, config: Q4Config, *, matrix: bool) -> None:
        super().__init__()
        self.register_parameter("bias", getattr(module, "bias", None))
        self.weight = module.weight.detach()  # models fill their weights by name
        if matrix:
            vocab, embed_dim = module.weight.shape
            shapes = (vocab, embed_dim // 2), (vocab, embed_dim // config.group_size)
            dtypes = torch.uint8, getattr(torch, config.scales_dtype)
            for name, shape, dtype in zip(BUFFERS, shapes, dtypes, strict=True):
                self.register_buffer(name, torch.empty(shape, dtype=dtype, device="meta"))


def _loaded(model: nn.Module, name: str) -> Q4Weight:
    """Return the matrix that transformers has put into the `_Waiting` module of that name."""
    tensors = [model.get_buffer(f"{name}.{buffer}") for buffer in BUFFERS]
    for tensor, buffer in zip(tensors, BUFFERS, strict=True):
        if not getattr(tensor, "_is_hf_initialized", False):
            raise FormatError(
                f"the checkpoint has no {name}.{buffer}, or one of another shape: it was not "
                f"written by save_pretrained of a tied model"
            )
    packed, scales = (tensor.cpu() for tensor in tensors)
    return Q4Weight(packed, scales)


@contextmanager
def saving(model: Any, state_dict: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Let transformers save a tied model: its config has a `Q4Config` in the meantime.

    Args:
        model: a tied model.
        state_dict: what to save in place of the model's own.

    Raises:
        NotImplementedError: the body of the model is quantized by something else.
    """
    held = vars(model.config).get("quantization_config")
    if getattr(model, "hf_quantizer", None) is not None or not isinstance(held, Q4Config | None):
        raise NotImplementedError(
            "the body of this model is quantized as well, and transformers keeps one quantization "
            "per checkpoint: save model.state_dict() with torch.save or the model with "
            "safetensors.torch.save_model, and load it into a model that went through tie"
        )
    modules = [module for module in model.modules() if isinstance(module, Quantized)]
    weight = modules[0].q4weight
    accuracies: list[Accuracy] = [
        module.accuracy for module in modules if isinstance(module, QuantizedLinear)
    ]
    accuracy = accuracies[0] if accuracies else "exact"
    config = Q4Config(weight.group_size, weight.scales.dtype.name, accuracy)
    model.hf_quantizer = Q4Quantizer(config, state_dict)
    model.config.quantization_config = config
    try:
        yield
    finally:
        del model.hf_quantizer
        if held is None:
            del model.config.quantization_config
        else:
            model.config.quantization_config = held
