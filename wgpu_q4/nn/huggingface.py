"""Methods of a tied Hugging Face model that would not know the 4-bit matrix, or only fail on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class _Method:
    """A method that one model has instead of its class's; copied and pickled with the model."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model


class _NumParameters(_Method):
    """``num_parameters``: the 4-bit matrix counts with its V · K values, once."""

    def __init__(self, model: nn.Module, values: int) -> None:
        super().__init__(model)
        self.values = values

    def __call__(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        count = type(self.model).num_parameters
        counted: int = count(self.model, only_trainable, exclude_embeddings)
        if only_trainable or exclude_embeddings:
            return counted
        return counted + self.values


class _ResizeTokenEmbeddings(_Method):
    """``resize_token_embeddings``: nothing to do for the size that there is."""

    def __call__(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Module:
        embedding: nn.Module = self.model.get_input_embeddings()
        vocab = int(self.model.get_input_embeddings().num_embeddings)
        size = vocab if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            size += -size % pad_to_multiple_of
        if size != vocab:
            raise NotImplementedError(
                f"the tied matrix is 4-bit now and cannot be resized from {vocab} rows to {size}: "
                f"call resize_token_embeddings before tie"
            )
        return embedding


class _SavePretrained(_Method):
    """``save_pretrained``: the 4-bit matrix once, and a config that says how it is held."""

    def __call__(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: Mapping[str, Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        from wgpu_q4.nn.pretrained import saving  # it imports transformers

        with saving(self.model, state_dict):
            return type(self.model).save_pretrained(
                self.model, save_directory, is_main_process, None, *args, **kwargs
            )


def replace_methods(model: nn.Module, values: int) -> None:
    """Give a model that was tied the methods of this module, where its class has such.

    Args:
        model: the model.
        values: V · K.
    """
    methods: dict[str, Any] = {
        "num_parameters": _NumParameters(model, values),
        "resize_token_embeddings": _ResizeTokenEmbeddings(model),
        "save_pretrained": _SavePretrained(model),
    }
    for name, method in methods.items():
        if hasattr(type(model), name):
            setattr(model, name, method)
