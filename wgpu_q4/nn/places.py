"""Where a Hugging Face model holds its tied matrix: the modules to replace, found and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wgpu_q4.nn.naming import FLOATS, dtype_name, dtype_names
from wgpu_q4.nn.replaceable import check_embedding, check_linear
from wgpu_q4.nn.shared import Quantized


@dataclass(frozen=True)
class Places:
    """The modules of a model that hold its tied matrix.

    Attributes:
        model: the model.
        matrix: the tied parameter ``[V, K]``.
        modules: each module under each of its names.
        scales: of each module, the factor of an embedding's rows, or None.
        first_name: the first name of the input embedding, under which a checkpoint holds the
            matrix.
        tied_keys: the parts of the model that tie parameters, with the ties that are left once the
            modules are replaced.
    """

    model: nn.Module
    matrix: nn.Parameter
    modules: dict[str, nn.Module]
    scales: dict[nn.Module, Tensor | float | None]
    first_name: str
    tied_keys: list[tuple[Any, dict[str, str]]]

    def replace(self, replacement: Mapping[nn.Module, nn.Module]) -> None:
        """Put other modules where the modules are.

        By name, since a model's own setters may refuse, or know one place of several.
        """
        self.put({name: replacement[module] for name, module in self.modules.items()})
        self.forget_ties()

    def put(self, named: Mapping[str, nn.Module]) -> None:
        """Put modules under names of the modules."""
        for name, module in named.items():
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, module)

    def forget_ties(self) -> None:
        """Keep transformers from looking for the parameter at the next ``tie_weights``."""
        for part, keys in self.tied_keys:
            part._tied_weights_keys = keys
            part.all_tied_weights_keys = keys


def find_places(model: nn.Module, *, loaded: bool, headless: bool = False) -> Places:
    """Find the modules that hold a model's tied matrix; the model is only read.

    Args:
        model: a transformers model, its two matrices tied.
        loaded: whether the values of the matrix are needed.  If not, the model may be on torch's
            meta device.
        headless: whether a model without an output head will do.

    Raises:
        TypeError: no causal LM, or an embedding or head that is more than a matrix, a bias and a
            scale.
        ValueError: the two matrices are not tied, not loaded, or 4-bit already.
    """
    embedding, matrix, tied = _tied_matrix(model, loaded, headless)
    modules: dict[str, nn.Module] = {}
    scales: dict[nn.Module, Tensor | float | None] = {}
    for name, module in _holders(model, tied):
        if name.endswith("original_module"):
            raise TypeError(
                f"{name} is the former half of what peft trains as modules_to_save or "
                f"trainable_token_indices: call merge_and_unload() first"
            )
        modules[name] = module
        if module in scales:
            continue
        if isinstance(module, nn.Embedding):
            scales[module] = check_embedding(module, name)
        elif not isinstance(module, nn.Linear):
            raise TypeError(
                f"{name} holds the tied matrix; tie can replace nn.Embedding and nn.Linear, not "
                f"{type(module).__name__}"
            )
        else:
            check_linear(module, name)
            scales[module] = None
    tied_keys = _tied_keys_without(model, {f"{name}.weight" for name in modules})
    first_name = next(name for name, module in modules.items() if module is embedding)
    return Places(model, matrix, modules, scales, first_name, tied_keys)


def _tied_matrix(
    model: nn.Module, loaded: bool, headless: bool
) -> tuple[nn.Module, nn.Parameter, set[str]]:
    """Return a model's embedding, the parameter that its output head shares, and all its names."""
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
    # What peft's adapters are around, if there are any.
    embedding, head = (getattr(module, "base_layer", module) for module in (embedding, head))
    embedding, head = _pair(model, embedding, head)
    matrices: list[nn.Parameter] = []
    if head is None and headless:
        head = embedding
    for module, role in ((embedding, "input embedding"), (head, "output head")):
        matrix = None if module is None else module._parameters.get("weight")
        if matrix is None:
            found = "none" if module is None else f"a {type(module).__name__}"
            raise TypeError(
                f"tie needs a model whose {role} holds a float matrix; {kind} has {found}"
            )
        if matrix.is_meta and loaded:
            raise ValueError(
                f"the {role} of {kind} is on torch's meta device: load the model's weights first, "
                f"without offloading, or pass a 4-bit matrix as weight="
            )
        if matrix.dtype not in FLOATS:
            raise TypeError(
                f"the {role} of {kind} is {dtype_name(matrix.dtype)}; "
                f"it must be one of {dtype_names(FLOATS)}"
            )
        matrices.append(matrix)
    first, second = matrices
    tied = _names(model, first)
    if not tied >= _names(model, second):
        if (
            not first.is_meta
            and first.shape == second.shape
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
    return embedding, first, tied


def _pair(model: nn.Module, embedding: Any, head: Any) -> tuple[Any, Any]:
    """Return the embedding and the head that are tied, where a model ties others than it names.

    The head of an encoder-decoder may be tied to the decoder's embedding, while the model names the
    encoder's; a model may name no head, although one reads its embedding.
    """
    with_head = _modules_with(model, head)
    if embedding not in with_head:
        for each in with_head:
            if isinstance(each, nn.Embedding):
                return each, head
        for each in _modules_with(model, embedding):
            if isinstance(each, nn.Linear):
                return embedding, each
    return embedding, head


def _modules_with(model: nn.Module, of: nn.Module | None) -> list[nn.Module]:
    """Return the modules that hold the matrix of the module ``of``, in the order of their names."""
    matrix = None if of is None else of._parameters.get("weight")
    names = [] if matrix is None else sorted(_names(model, matrix))
    return [model.get_submodule(name.rpartition(".")[0]) for name in names]


def _names(model: nn.Module, matrix: Tensor) -> set[str]:
    """Return the names of the parameters that are ``matrix``.

    A parameter without values counts if transformers will tie it to one of that name.
    """
    parameters = model.named_parameters(remove_duplicate=False)
    names = {name for name, parameter in parameters if _same_memory(parameter, matrix)}
    ties = dict(getattr(model, "all_tied_weights_keys", None) or {}) if matrix.is_meta else {}
    grown = True
    while grown:
        grown = False
        for pair in ties.items():
            if not names.isdisjoint(pair) and not names.issuperset(pair):
                names.update(pair)
                grown = True
    return names


def _same_memory(a: Tensor, b: Tensor) -> bool:
    if a is b or a.is_meta or b.is_meta:
        return a is b
    return a.data_ptr() == b.data_ptr() and (
        (a.device, a.dtype, a.shape, a.stride()) == (b.device, b.dtype, b.shape, b.stride())
    )


def _holders(model: nn.Module, tied: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield each name under which a module holds a parameter in ``tied``, and the module."""
    for name, module in model.named_modules(remove_duplicate=False):
        dot = f"{name}." if name else ""
        for key in module._parameters:
            if f"{dot}{key}" in tied:
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
