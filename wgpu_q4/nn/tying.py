"""`tie`: one 4-bit matrix for the embedding and the output head of a Hugging Face model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn

from wgpu_q4.arrays import DTypeLike
from wgpu_q4.device import context_for
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.huggingface import replace_methods
from wgpu_q4.nn.modules import QuantizedEmbedding, QuantizedLinear
from wgpu_q4.nn.naming import FLOATS, dtype_name, dtype_names, mebibytes
from wgpu_q4.nn.replaceable import check_embedding, check_linear
from wgpu_q4.nn.shared import Quantized
from wgpu_q4.ops.arguments import check_option
from wgpu_q4.weight import Q4Weight


def tie(
    model: nn.Module,
    group_size: int = 32,
    *,
    scales_dtype: DTypeLike = "float16",
    device: Any = None,
    accuracy: Accuracy = "exact",
) -> TieReport:
    """Replace the tied embedding and output head of a Hugging Face causal LM by one 4-bit matrix.

    Every module that holds the tied parameter is replaced, a head's bias and an embedding's scale
    (Gemma's) are kept, and the model lets go of the float matrix.  Nothing is changed if anything
    is refused.  Afterwards the matrix is frozen: gradients pass the head to the body, and none to
    the matrix.  ``state_dict()`` holds the packed matrix as plain tensors, and loads into a model
    that went through `tie` itself.

    Args:
        model: a transformers model with ``get_input_embeddings`` and ``get_output_embeddings``,
            loaded, its two matrices tied.
        group_size: ``G``, a multiple of 8 that divides the hidden size.
        scales_dtype: float16 or float32, as numpy or torch write it.
        device: as in `wgpu_q4.embedding`; the default device if None.
        accuracy: of the head, ``"exact"``, ``"fast"`` or ``"int8"``, as in `wgpu_q4.linear`.

    Raises:
        TypeError: no causal LM, or an embedding or head that is more than a matrix, a bias and a
            scale.
        ValueError: the two matrices are not tied, not loaded, or have been through `tie` before;
            or an accuracy that does not exist.
        FormatError: ``group_size`` does not fit the rows, or a value is not finite.
        DeviceError: no such device, or the matrix is too large for it.
    """
    check_option("accuracy", accuracy, get_args(Accuracy))
    matrix = _tied_matrix(model)
    dtype, bytes_before = matrix.dtype, matrix.numel() * matrix.element_size()
    scales: dict[nn.Module, Tensor | float | None] = {}
    names: dict[str, nn.Module] = {}
    for name, module in _holders(model, matrix):
        names[name] = module
        if module in scales:
            continue
        if isinstance(module, nn.Embedding):
            scales[module] = check_embedding(module, name)
        else:
            check_linear(module, name)
    tied_keys = _tied_keys_without(model, {f"{name}.weight" for name in names})

    context = context_for(device)  # no adapter, or not of that name: fails before the model changes
    weight = Q4Weight.quantize(matrix, group_size, scales_dtype)
    context.weight(weight)  # likewise a matrix too large for it
    replacement: dict[nn.Module, Quantized] = {}
    for module in names.values():
        if module in replacement:
            continue
        held = next(iter(replacement.values()), weight)  # the first module, to which others tie
        replacement[module] = (
            QuantizedEmbedding(held, device=device, embed_scale=scales[module], dtype=dtype)
            if isinstance(module, nn.Embedding)
            else QuantizedLinear(
                held,
                module.bias,  # type: ignore[arg-type]
                device=device,
                accuracy=accuracy,
                dtype=dtype,
            )
        )
    huggingface: Any = model
    embedding, head = huggingface.get_input_embeddings(), huggingface.get_output_embeddings()
    huggingface.set_input_embeddings(replacement[embedding])
    huggingface.set_output_embeddings(replacement[head])
    for name, module in names.items():  # a module that other places in the model also name
        parent, _, leaf = name.rpartition(".")
        if getattr(model.get_submodule(parent), leaf) is module:
            setattr(model.get_submodule(parent), leaf, replacement[module])
    for part, keys in tied_keys:
        # transformers would look for the parameter again at the next tie_weights().
        part._tied_weights_keys = keys
        part.all_tied_weights_keys = keys
    replace_methods(model)
    return TieReport(weight, tuple(names), dtype, bytes_before, weight.nbytes)


@dataclass(frozen=True)
class TieReport:
    """The outcome of `tie`, in bytes of the tied matrix alone.

    Attributes:
        weight: the packed matrix that the modules read now.
        replaced: the names of the modules that were replaced.
        dtype: the dtype of the former float matrix.
        bytes_before: bytes of the float matrix.
        bytes_after: bytes of the packed matrix and its scales.
    """

    weight: Q4Weight = field(repr=False)
    replaced: tuple[str, ...]
    dtype: torch.dtype
    bytes_before: int
    bytes_after: int

    @property
    def bytes_untied(self) -> int:
        """Bytes of two 4-bit copies, one for each use."""
        return 2 * self.bytes_after

    @property
    def bytes_saved(self) -> int:
        """Bytes that the packed matrix takes less than the float matrix."""
        return self.bytes_before - self.bytes_after

    def __str__(self) -> str:
        vocab, embed_dim = self.weight.shape
        smaller = f"({self.bytes_before / self.bytes_after:.1f}× smaller)"
        return (
            f"{' and '.join(self.replaced)} read one 4-bit matrix, {vocab:,} × {embed_dim:,}, "
            f"group {self.weight.group_size}\n"
            f"  before, {dtype_name(self.dtype):<18} {mebibytes(self.bytes_before)}\n"
            f"  now, 4 bits, once          {mebibytes(self.bytes_after)}  {smaller}\n"
            f"  two untied 4-bit copies    {mebibytes(self.bytes_untied)}\n"
            f"  saved                      {mebibytes(self.bytes_saved)}"
        )


def _tied_matrix(model: nn.Module) -> nn.Parameter:
    """Return the one parameter that a model's embedding and output head share."""
    kind = type(model).__name__
    try:
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        head = model.get_output_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError) as error:
        raise TypeError(
            f"tie needs a Hugging Face causal language model, with get_input_embeddings() and "
            f"get_output_embeddings(); {kind} lacks them"
        ) from error
    if isinstance(embedding, Quantized) or isinstance(head, Quantized):
        raise ValueError(f"this {kind} already reads a 4-bit matrix: it went through tie before")
    matrices: list[nn.Parameter] = []
    for module, role in ((embedding, "input embedding"), (head, "output head")):
        matrix = None if module is None else module._parameters.get("weight")
        if matrix is None:
            found = "none" if module is None else f"a {type(module).__name__}"
            raise TypeError(
                f"tie needs a model whose {role} holds a float matrix; {kind} has {found}"
            )
        if matrix.is_meta:
            raise ValueError(
                f"the {role} of {kind} is on torch's meta device: load the model's weights first, "
                f"without offloading"
            )
        if matrix.dtype not in FLOATS:
            raise TypeError(
                f"the {role} of {kind} is {dtype_name(matrix.dtype)}; "
                f"it must be one of {dtype_names(FLOATS)}"
            )
        matrices.append(matrix)
    first, second = matrices
    if not _same_memory(first, second):
        if (
            first.shape == second.shape
            and first.device == second.device
            and bool((first == second).all())
        ):
            raise ValueError(
                f"the embedding and the head of {kind} are equal but separate matrices. Tie them "
                f"first: model.config.tie_word_embeddings = True; model.tie_weights()"
            )
        raise ValueError(
            f"the embedding and the head of {kind} are different matrices, not tied: one of them "
            f"would be lost. Quantize each on its own with QuantizedEmbedding.from_float and "
            f"QuantizedLinear.from_float"
        )
    return first


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.data_ptr() == b.data_ptr()
        and (a.device, a.dtype, a.shape, a.stride()) == (b.device, b.dtype, b.shape, b.stride())
    )


def _holders(model: nn.Module, matrix: Tensor) -> Iterator[tuple[str, nn.Module]]:
    """Yield each name under which a module holds ``matrix`` as its weight, and the module."""
    for name, module in model.named_modules(remove_duplicate=False):
        for key, parameter in module._parameters.items():
            if parameter is not None and _same_memory(parameter, matrix):
                if key != "weight":
                    raise TypeError(
                        f"the tied matrix is also {name}.{key} of a {type(module).__name__}, which "
                        f"tie cannot replace"
                    )
                yield name, module


def _tied_keys_without(model: nn.Module, gone: set[str]) -> list[tuple[Any, dict[str, str]]]:
    """Return the parts of a model that tie parameters in ``gone``, each with its remaining ties.

    A tie maps a target to its source; both are names relative to the part.  The patterns of
    transformers are expanded here, so the parameters must still be in the model.
    """
    parts = []
    for prefix, part in model.named_modules():
        expand = getattr(part, "get_expanded_tied_weights_keys", None)
        if expand is None:
            continue
        dot = f"{prefix}." if prefix else ""
        keys: dict[str, str] = getattr(part, "all_tied_weights_keys", None) or expand()
        left = {
            target: source
            for target, source in keys.items()
            if f"{dot}{target}" not in gone and f"{dot}{source}" not in gone
        }
        if left != keys:
            parts.append((part, left))
    return parts
