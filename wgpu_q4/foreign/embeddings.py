"""Which matrix of a checkpoint is a model's embedding, and whether its head is the same one."""

from __future__ import annotations

from typing import Any

import numpy as np

from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.checkpoint import Checkpoint

EMBEDDINGS = (
    *("shared", "embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings"),
    *("token_embedding", "embeddings", "wte_embedding"),
)
"""The last part of an embedding's name in transformers' architectures, the commonest first."""

HEADS = ("lm_head", "embed_out", "output_projection", "predictions.decoder", "proj_out")
"""The end of a head's name."""

_STORED = ("weight", "weight_packed", "qweight")
"""What a matrix is called below its module: as floats (or MLX's 4 bits), or packed by others."""

_NONE = f"no tensor of two dimensions whose name ends in {', '.join(_STORED)}"


def matrices(checkpoint: Checkpoint) -> dict[str, str]:
    """Return each module that stores a matrix, and the name of the tensor."""
    found: dict[str, str] = {}
    for tensor in checkpoint.names:
        module, _, stored = tensor.rpartition(".")
        if stored in _STORED and len(checkpoint.shape(tensor)) == 2:
            found[module] = tensor
    return found


def module_of(checkpoint: Checkpoint, name: str) -> str:
    """Return the module called ``name``, or that of the tensor called so.

    Raises:
        FormatError: it stores no matrix.
    """
    modules = matrices(checkpoint)
    for module in (name, name.rpartition(".")[0]):
        if module in modules:
            return module
    names = f"{', '.join(map(repr, list(modules)[:5]))}{', …' if len(modules) > 5 else ''}"
    found = f"{len(modules)}: {names}" if modules else _NONE
    raise FormatError(f"{checkpoint.where} has no matrix {name!r}. It has {found}")


def tied_module(checkpoint: Checkpoint) -> str:
    """Return the module whose matrix is embedding and head of a model.

    Raises:
        FormatError: the model is not tied, or has no embedding or several.
    """
    modules = matrices(checkpoint)
    ends = {end: [m for m in modules if m.rpartition(".")[2] == end] for end in EMBEDDINGS}
    found = next((candidates for candidates in ends.values() if candidates), [])
    found = [module for module in found if _has_vocabulary(checkpoint, module)] or found
    if not found:
        raise FormatError(
            f"{checkpoint.where} has no embedding by any of the names {', '.join(EMBEDDINGS)}: "
            f"give its name. It has {', '.join(map(repr, list(modules)[:5])) or _NONE}"
        )
    if len(found) > 1 and not all(_equal(checkpoint, modules, found[0], m) for m in found[1:]):
        raise FormatError(
            f"{checkpoint.where} has several embeddings, {', '.join(map(repr, found))}: give the "
            f"name of one"
        )
    says = _says_tied(checkpoint.config)
    heads = [m for m in modules if m.endswith(HEADS)]
    if heads and says is None:
        says = _equal(checkpoint, modules, found[0], heads[0])
    if heads and not says:
        raise untied(checkpoint.where, found[0], heads[0])
    if heads and modules[heads[0]].rpartition(".")[2] != "weight":
        raise FormatError(
            f"{checkpoint.where}: its config ties the head to the embedding, but the head has a "
            f"4-bit matrix of its own, {modules[heads[0]]!r}. Load one of them by name="
            f"{found[0]!r} or name={heads[0]!r}"
        )
    if says is False:
        raise FormatError(
            f"{checkpoint.where} is not tied: its config says tie_word_embeddings = false, and no "
            f"head is among its tensors. Load the embedding by name={found[0]!r}"
        )
    return found[0]


def _says_tied(config: dict[str, Any]) -> bool | None:
    """Return what a configuration says, at its top or of its text model; None if nothing."""
    for part in (config, config.get("text_config"), config.get("llm_config")):
        if isinstance(part, dict) and isinstance(part.get("tie_word_embeddings"), bool):
            return bool(part["tie_word_embeddings"])
    return None


def _has_vocabulary(checkpoint: Checkpoint, module: str) -> bool:
    """Tell if a module's matrix has as many rows as the configuration has words."""
    for part in (checkpoint.config, checkpoint.config.get("text_config")):
        if isinstance(part, dict) and isinstance(part.get("vocab_size"), int):
            tensor = matrices(checkpoint)[module]
            rows = checkpoint.shape(tensor)[-1 if tensor.endswith(".qweight") else 0]
            return bool(rows == part["vocab_size"])
    return False


def _equal(checkpoint: Checkpoint, modules: dict[str, str], one: str, other: str) -> bool:
    a, b = modules[one], modules[other]
    if checkpoint.dtype(a) != checkpoint.dtype(b) or checkpoint.shape(a) != checkpoint.shape(b):
        return False
    octets = [checkpoint.raw(name).reshape(-1).view(np.uint8).data for name in (a, b)]
    return octets[0] == octets[1]


def untied(where: str, embedding: str, head: str) -> FormatError:
    """Return the error for a model with two matrices."""
    return FormatError(
        f"{where} is not tied: its embedding is {embedding!r} and its head is {head!r}, a matrix "
        f"of its own. Load one of them by name={embedding!r} or name={head!r}"
    )
