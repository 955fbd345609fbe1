"""torch modules that read one `Q4Weight`, and `tie`, which puts them into a Hugging Face model.

Inference only.  The body of the model stays in torch; the embedding and the output linear run on
the device of `wgpu_q4`, from the one packed matrix that both hold.  Tensors may live on any torch
device: a result comes back on its input's.

Requires torch.  `tie` needs a model in hands, and so transformers, but imports neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from wgpu_q4 import ops
from wgpu_q4.errors import FormatError
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import OutputDtype
from wgpu_q4.weight import Q4Weight

__all__ = ["QuantizedEmbedding", "QuantizedLinear", "TieReport", "tie"]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _Shared:
    """A weight and the device that reads it, as one opaque attribute of a module.

    Copies of a module share it, for a `Q4Weight` never changes.  Pickling takes the bytes and
    leaves a device object behind: unless the device was named, the copy runs on the default one.
    """

    def __init__(self, weight: Q4Weight, device: Any) -> None:
        if not isinstance(weight, Q4Weight):
            raise TypeError(f"weight must be a Q4Weight, not {type(weight).__name__}")
        _live.setdefault(weight, {})
        self.weight = weight
        self.device = device

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        weight, device = self.weight, self.device if isinstance(self.device, str) else None
        return _unpickled, (weight.packed, weight.scales, weight.convention, device)


def _unpickled(packed: Any, scales: Any, convention: Any, device: str | None) -> _Shared:
    return _Shared(_interned(Q4Weight(packed, scales, convention)), device)


_live: WeakKeyDictionary[Q4Weight, dict[str, Any]] = WeakKeyDictionary()
"""The weights that modules hold, each with its entry in state dicts once that was asked for."""


def _interned(weight: Q4Weight) -> Q4Weight:
    """The weight in use that holds the same matrix, else ``weight``.

    A state dict names a tied matrix under both modules; this is how they share it again.
    """
    return next((known for known in list(_live) if known.same_matrix(weight)), weight)


class _Quantized(nn.Module):
    """What both modules are: a reference to a weight, and its place in state dicts."""

    _shared: _Shared

    def __init__(self, weight: Q4Weight, device: Any) -> None:
        super().__init__()
        self._shared = _Shared(weight, device)

    @property
    def weight(self) -> Q4Weight:
        """The packed matrix ``[V, K]``; the same object in every module tied to it."""
        return self._shared.weight

    def get_extra_state(self) -> dict[str, Any]:
        """``packed``, ``scales`` and ``convention`` of the weight.

        The tensors are the weight's own memory, the same objects for every module that holds it:
        ``torch.save`` writes them once.  They must not be changed in place.
        """
        state = _live.setdefault(self.weight, {})
        if not state:
            with warnings.catch_warnings():
                # The arrays are read-only, which torch has no word for.
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                state["packed"] = torch.from_numpy(self.weight.packed)
                state["scales"] = torch.from_numpy(self.weight.scales)
            state["convention"] = self.weight.convention
        return dict(state)

    def set_extra_state(self, state: Any) -> None:
        """Take the weight of a state dict; equal matrices become one object.

        Raises:
            FormatError: not such a state, or a matrix of another shape.
        """
        if not isinstance(state, dict) or not {"packed", "scales", "convention"} <= state.keys():
            raise FormatError(
                f"the extra state of {type(self).__name__} must be a dict with packed, scales and "
                f"convention, not {type(state).__name__}"
            )
        weight = Q4Weight(state["packed"], state["scales"], state["convention"])
        if weight.shape != self.weight.shape:
            raise FormatError(
                f"the state dict holds a matrix of shape {list(weight.shape)}; this "
                f"{type(self).__name__} needs {list(self.weight.shape)}"
            )
        self._shared = _Shared(_interned(weight), self._shared.device)

    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ W.T + bias``; gradients are refused rather than lost."""
        if torch.is_grad_enabled() and (
            x.requires_grad or (bias is not None and bias.requires_grad)
        ):
            raise RuntimeError(
                f"{type(self).__name__} is for inference: no gradient passes its 4-bit matrix. "
                f"Run the model under torch.no_grad() or torch.inference_mode()"
            )
        result: Tensor = ops.linear(x, self.weight, bias, self._shared.device)
        return result

    def _sizes(self) -> str:
        vocab, embed_dim = self.weight.shape
        return f"{vocab}, {embed_dim}, group_size={self.weight.group_size}"


class QuantizedEmbedding(_Quantized):
    """Token embedding that reads a 4-bit matrix; use it where ``nn.Embedding`` stood.

    Rows are exact: each value is ``(u − 8) · scale`` in float32, rounded once to the module's
    dtype.  That is float32 unless ``dtype`` says otherwise, and follows the model through
    ``.half()``, ``.bfloat16()`` and ``.to(dtype)``.

    Args:
        weight: the matrix ``[V, K]``.
        device: where it is read, as in `wgpu_q4.embedding`; the default device if None.
        embed_scale: multiplies every row after rounding, as Gemma's embeddings do.  A tensor is
            rounded to the module's dtype first, a float is not.
        dtype: of the result; float16, bfloat16, float32 or float64.
    """

    embed_scale: Tensor | float | None
    _like: Tensor

    def __init__(
        self,
        weight: Q4Weight,
        *,
        device: Any = None,
        embed_scale: Tensor | float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(weight, device)
        if dtype not in _FLOATS:
            raise TypeError(f"dtype must be one of {_names(_FLOATS)}, not {dtype}")
        self.num_embeddings, self.embedding_dim = weight.shape
        # An empty buffer has a dtype, and torch converts it with the rest of the model.
        self.register_buffer("_like", torch.empty(0, dtype=dtype), persistent=False)
        if isinstance(embed_scale, Tensor):
            self.register_buffer("embed_scale", embed_scale.detach().clone(), persistent=False)
        else:
            self.embed_scale = embed_scale

    @classmethod
    def from_float(
        cls,
        embedding: nn.Embedding,
        group_size: int = 32,
        *,
        scales_dtype: ScalesDtype = "float16",
        device: Any = None,
    ) -> QuantizedEmbedding:
        """Quantize an embedding: ``nn.Embedding``, or a subclass that only scales its rows.

        Raises:
            TypeError: an embedding that does something else as well.
            FormatError: ``group_size`` does not fit the rows, or a value is not finite.
        """
        scale = _check_embedding(embedding, "embedding")
        matrix = embedding.weight
        weight = Q4Weight.quantize(matrix, group_size, scales_dtype)
        return cls(weight, device=device, embed_scale=scale, dtype=matrix.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the rows that come out."""
        return self._like.dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Rows ``ids.shape + (K,)`` in `dtype`, for ids of any integer type and shape.

        Raises:
            TypeError: ids that are not integers.
            IndexError: an id outside ``0..V−1``; the message names the first.
        """
        exact: OutputDtype = "float16" if self.dtype == torch.float16 else "float32"
        rows: Tensor = ops.embedding(ids, self.weight, exact, self._shared.device)
        rows = rows.to(self.dtype)
        if isinstance(self.embed_scale, Tensor):
            return rows * self.embed_scale.to(rows)
        return rows if self.embed_scale is None else rows * self.embed_scale

    def as_linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x @ W.T + bias``: the same matrix as an output head; ``embed_scale`` is not in it.

        Args:
            x: ``[..., K]``, float16, bfloat16 or float32.
            bias: ``[V]`` or None.

        Returns:
            ``[..., V]`` in the dtype of ``x``, accumulated in float32.

        Raises:
            RuntimeError: ``x`` or ``bias`` wants a gradient.
        """
        return self._linear(x, bias)

    def extra_repr(self) -> str:
        scale = "" if self.embed_scale is None else f", embed_scale={float(self.embed_scale):g}"
        return f"{self._sizes()}, dtype={_name(self.dtype)}{scale}"


class QuantizedLinear(_Quantized):
    """Output head that reads a 4-bit matrix; use it where ``nn.Linear`` stood.

    Pass it the weight of a `QuantizedEmbedding` and the matrix is held once for both.

    Args:
        weight: the matrix ``[V, K]``.
        bias: ``[V]`` or None.  A parameter is kept as it is, and no longer asks for gradients.
        device: where the matrix is read, as in `wgpu_q4.linear`; the default device if None.
    """

    bias: nn.Parameter | None

    def __init__(self, weight: Q4Weight, bias: Tensor | None = None, *, device: Any = None) -> None:
        super().__init__(weight, device)
        self.out_features, self.in_features = weight.shape
        if bias is not None:
            if tuple(bias.shape) != (self.out_features,):
                raise ValueError(
                    f"bias must have shape [V] = [{self.out_features}], not {list(bias.shape)}"
                )
            if not isinstance(bias, nn.Parameter):
                bias = nn.Parameter(bias.detach(), requires_grad=False)
            bias.requires_grad_(False)
        self.register_parameter("bias", bias)

    @classmethod
    def from_float(
        cls,
        linear: nn.Linear,
        group_size: int = 32,
        *,
        scales_dtype: ScalesDtype = "float16",
        device: Any = None,
    ) -> QuantizedLinear:
        """Quantize an ``nn.Linear``; its bias is kept, the parameter itself.

        Raises:
            TypeError: a subclass with a forward of its own.
            FormatError: ``group_size`` does not fit the rows, or a value is not finite.
        """
        _check_linear(linear, "linear")
        weight = Q4Weight.quantize(linear.weight, group_size, scales_dtype)
        return cls(weight, linear.bias, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + bias``: ``[..., K]`` to ``[..., V]``, see `QuantizedEmbedding.as_linear`."""
        return self._linear(x, self.bias)

    def extra_repr(self) -> str:
        return f"{self._sizes()}, bias={self.bias is not None}"


@dataclass(frozen=True)
class TieReport:
    """What `tie` did, in bytes of the tied matrix alone.

    Attributes:
        weight: the packed matrix that the modules now read.
        replaced: names of the modules that were replaced.
        dtype: dtype of the float matrix that is gone.
        bytes_before: what the float matrix took.
        bytes_after: what the packed matrix and its scales take.
    """

    weight: Q4Weight = field(repr=False)
    replaced: tuple[str, ...]
    dtype: torch.dtype
    bytes_before: int
    bytes_after: int

    @property
    def bytes_untied(self) -> int:
        """What two 4-bit copies would take, one for each use."""
        return 2 * self.bytes_after

    @property
    def bytes_saved(self) -> int:
        """How much less the packed matrix takes than the float one."""
        return self.bytes_before - self.bytes_after

    def __str__(self) -> str:
        vocab, embed_dim = self.weight.shape
        smaller = f"({self.bytes_before / self.bytes_after:.1f}× smaller)"
        return (
            f"{' and '.join(self.replaced)} read one 4-bit matrix, {vocab:,} × {embed_dim:,}, "
            f"group {self.weight.group_size}\n"
            f"  before, {_name(self.dtype):<18} {_mebibytes(self.bytes_before)}\n"
            f"  now, 4 bits, once          {_mebibytes(self.bytes_after)}  {smaller}\n"
            f"  two untied 4-bit copies    {_mebibytes(self.bytes_untied)}\n"
            f"  saved                      {_mebibytes(self.bytes_saved)}"
        )


def tie(
    model: nn.Module,
    group_size: int = 32,
    *,
    scales_dtype: ScalesDtype = "float16",
    device: Any = None,
) -> TieReport:
    """Replace the tied embedding and output head of a Hugging Face causal LM by one 4-bit matrix.

    Every module that holds the tied parameter is replaced, a head's bias and an embedding's scale
    (Gemma's) are kept, and the model lets go of the float matrix.  Nothing is changed if anything
    is refused.  Afterwards the model is for inference; ``state_dict()`` holds the packed matrix,
    and loads into a model that went through `tie` itself.

    Args:
        model: a transformers model with ``get_input_embeddings`` and ``get_output_embeddings``,
            loaded, its two matrices tied.
        group_size: ``G``, a multiple of 8 that divides the hidden size.
        scales_dtype: ``"float16"`` or ``"float32"``.
        device: as in `wgpu_q4.embedding`; the default device if None.

    Raises:
        TypeError: no causal LM, or an embedding or head that is more than a matrix, a bias and a
            scale.
        ValueError: the two matrices are not tied, not loaded, or have been through `tie` before.
        FormatError: ``group_size`` does not fit the rows, or a value is not finite.
    """
    matrix = _tied_matrix(model)
    dtype, bytes_before = matrix.dtype, matrix.numel() * matrix.element_size()
    scales: dict[nn.Module, Tensor | float | None] = {}
    names: dict[str, nn.Module] = {}
    for name, module in _holders(model, matrix):
        names[name] = module
        if module in scales:
            continue
        if isinstance(module, nn.Embedding):
            scales[module] = _check_embedding(module, name)
        else:
            _check_linear(module, name)
    tied_keys = _tied_keys_without(model, {f"{name}.weight" for name in names})

    weight = Q4Weight.quantize(matrix, group_size, scales_dtype)
    replacement: dict[nn.Module, nn.Module] = {}
    for module in names.values():
        if module in replacement:
            continue
        replacement[module] = (
            QuantizedEmbedding(weight, device=device, embed_scale=scales[module], dtype=dtype)
            if isinstance(module, nn.Embedding)
            else QuantizedLinear(weight, module.bias, device=device)  # type: ignore[arg-type]
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
    for method, refusal in _REFUSALS.items():
        if hasattr(model, method):
            setattr(model, method, refusal)
    return TieReport(weight, tuple(names), dtype, bytes_before, weight.nbytes)


def _tied_matrix(model: nn.Module) -> nn.Parameter:
    """The one parameter that a model's embedding and output head share."""
    kind = type(model).__name__
    try:
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        head = model.get_output_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError) as error:
        raise TypeError(
            f"tie needs a Hugging Face causal language model, with get_input_embeddings() and "
            f"get_output_embeddings(); {kind} lacks them"
        ) from error
    if isinstance(embedding, _Quantized) or isinstance(head, _Quantized):
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
        if matrix.dtype not in _FLOATS:
            raise TypeError(
                f"the {role} of {kind} is {_name(matrix.dtype)}; "
                f"it must be one of {_names(_FLOATS)}"
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
    """Each name under which a module holds ``matrix`` as its weight, with the module."""
    for name, module in model.named_modules(remove_duplicate=False):
        for key, parameter in module._parameters.items():
            if parameter is not None and _same_memory(parameter, matrix):
                if key != "weight":
                    raise TypeError(
                        f"the tied matrix is also {name}.{key} of a {type(module).__name__}, which "
                        f"tie cannot replace"
                    )
                yield name, module


def _check_embedding(module: nn.Module, name: str) -> Tensor | float | None:
    """The scale of an embedding's rows, or None; `TypeError` if it is more than that."""
    if not isinstance(module, nn.Embedding):
        raise TypeError(f"{name} must be an nn.Embedding, not {type(module).__name__}")
    _check_replaceable(module, name, {"weight"})
    if module.max_norm is not None:
        raise TypeError(f"{name} has max_norm = {module.max_norm}: its rows change as it is used")
    if type(module).forward is nn.Embedding.forward:
        return None
    # transformers has a dozen classes that multiply by embed_scale, and others that do more.
    scale: Any = getattr(module, "embed_scale", None)
    if scale is None or not _only_scales(module, scale):
        raise TypeError(
            f"{name} is a {type(module).__name__}, whose forward does more than look up rows and "
            f"multiply them by embed_scale; tie and from_float would lose that"
        )
    return scale  # type: ignore[no-any-return]


@torch.no_grad()
def _only_scales(module: nn.Embedding, scale: Tensor | float) -> bool:
    """Whether an embedding returns ``row · scale`` for every id, to the last bit."""
    matrix = module.weight
    factor = scale.to(matrix.dtype) if isinstance(scale, Tensor) else scale
    ids = torch.arange(matrix.shape[0], device=matrix.device)
    parts = torch.split(ids, 8192)
    return all(torch.equal(module(part), matrix[part] * factor) for part in parts)


def _check_linear(module: nn.Module, name: str) -> None:
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{name} must be an nn.Linear, not {type(module).__name__}")
    _check_replaceable(module, name, {"weight", "bias"})
    if type(module).forward is not nn.Linear.forward:
        raise TypeError(
            f"{name} is a {type(module).__name__}, whose forward is not nn.Linear's; "
            f"tie and from_float would lose what it does"
        )


def _check_replaceable(module: nn.Module, name: str, parameters: set[str]) -> None:
    """Raise if something hangs on a module that would silently go with it."""
    extra = module._parameters.keys() - parameters
    if extra:
        raise TypeError(
            f"{name} is a {type(module).__name__} with further parameters: {', '.join(extra)}"
        )
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        raise TypeError(
            f"{name} has hooks or a patched forward, which would be lost. Remove them first; a "
            f"model that accelerate spread over devices has them: load it without offloading"
        )


def _tied_keys_without(model: nn.Module, gone: set[str]) -> list[tuple[Any, dict[str, str]]]:
    """The parts of a transformers model that tie parameters in ``gone``, with what is left to tie.

    Both sides are names relative to the part; its patterns are expanded, for which the parameters
    must still be there.
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


def _refuse_save(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "save_pretrained would write a checkpoint that from_pretrained cannot read: the tied "
        "matrix is 4-bit now. Save model.state_dict() with torch.save, and load it into a model "
        "that went through tie; or save the float model before tie"
    )


def _refuse_resize(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "the tied matrix is 4-bit now and cannot be resized: "
        "call resize_token_embeddings before tie"
    )


_REFUSALS = {"save_pretrained": _refuse_save, "resize_token_embeddings": _refuse_resize}
"""Methods of a tied model that could only fail obscurely.  Plain functions: models are pickled."""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(map(_name, dtypes))


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:8.2f} MiB"
