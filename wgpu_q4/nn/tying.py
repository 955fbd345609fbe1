"""`tie`: one 4-bit matrix for the embedding and the output head of a Hugging Face model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args, overload

import torch
from torch import nn

from wgpu_q4 import rich
from wgpu_q4.arrays import DTypeLike, float_dtype
from wgpu_q4.errors import FormatError
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.huggingface import replace_methods
from wgpu_q4.nn.modules import QuantizedEmbedding, QuantizedLinear
from wgpu_q4.nn.naming import dtype_name, mebibytes
from wgpu_q4.nn.places import Places, find_places
from wgpu_q4.nn.shared import Quantized
from wgpu_q4.nn.tensor import Q4Tensor
from wgpu_q4.ops.arguments import check_option
from wgpu_q4.ops.several import contexts_for, upload
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from wgpu_q4.nn.ranks.tying import RankTieReport

_ALONE: Any = object()
"""No process group was given.  None is not the same: torch's group of all ranks is None before
torch.distributed is initialized."""


@overload
def tie(
    model: nn.Module,
    group_size: int | None = None,
    *,
    weight: Q4Weight | None = None,
    scales_dtype: DTypeLike | None = None,
    device: Any = None,
    accuracy: Accuracy = "exact",
) -> TieReport: ...
@overload
def tie(
    model: nn.Module,
    group_size: int | None = None,
    *,
    weight: Q4Weight | None = None,
    scales_dtype: DTypeLike | None = None,
    device: Any = None,
    accuracy: Accuracy = "exact",
    process_group: ProcessGroup,
) -> RankTieReport: ...
def tie(
    model: nn.Module,
    group_size: int | None = None,
    *,
    weight: Q4Weight | None = None,
    scales_dtype: DTypeLike | None = None,
    device: Any = None,
    accuracy: Accuracy = "exact",
    process_group: ProcessGroup = _ALONE,
) -> TieReport | RankTieReport:
    """Replace the tied embedding and output head of a Hugging Face model by one 4-bit matrix.

    Every module that holds the tied parameter is replaced; in an encoder-decoder of two models,
    these are the decoder's embedding and its head.  A head's bias and an embedding's scale
    (Gemma's) are kept, and the model lets go of the float matrix.  Nothing is changed if anything
    is refused.  Afterwards the matrix is frozen: gradients pass the head to the body, and none to
    the matrix.  ``state_dict()`` holds the packed matrix as plain tensors, and loads into a model
    that went through `tie` itself; ``save_pretrained`` writes a checkpoint for ``from_pretrained``.

    Args:
        model: a transformers model with ``get_input_embeddings`` and ``get_output_embeddings``,
            its two matrices tied.  It must be loaded, unless ``weight`` is given: a model on
            torch's meta device will do then.
        group_size: ``G``, a multiple of 8 that divides the hidden size; 32 by default.  A matrix
            that torchao has quantized is taken over as it is, by default in its own groups.
        weight: a 4-bit matrix ``[V, K]`` to use in place of the model's own, which is dropped
            unread.  The model's own is quantized if None.
        scales_dtype: float16 (by default) or float32, as numpy or torch write it.
        device: as in `wgpu_q4.embedding`; the default device if None.
        accuracy: of the head, ``"exact"``, ``"fast"`` or ``"int8"``, as in `wgpu_q4.linear`.
        process_group: of ``torch.distributed``.  Each of its ranks calls `tie` and keeps a share of
            the rows only; all ranks then run the model on the same ids, and get the same logits.
            See `wgpu_q4.nn.ranks`.

    Returns:
        The bytes before and after, and the names of the replaced modules.

    Raises:
        TypeError: no causal LM, or an embedding or head that is more than a matrix, a bias and a
            scale; or ``weight`` is no `Q4Weight`.
        ValueError: the two matrices are not tied, not loaded, or have been through `tie` before;
            or an accuracy that does not exist.
        FormatError: ``group_size`` does not fit the rows, a value is not finite, or ``weight`` has
            another shape, group or dtype of scales than the model or the arguments say.
        DeviceError: no such device, or the matrix is too large for it.
        RankError: the process group cannot be used, its ranks disagree, or another one failed.
    """

    def prepare() -> tuple[Places, Q4Weight]:
        check_option("accuracy", accuracy, get_args(Accuracy))
        places = find_places(model, loaded=weight is None)
        if weight is not None:
            _check_weight(weight, places.matrix, group_size, scales_dtype)
        contexts_for(device)  # no adapter, or not of that name: fails before the model changes
        if weight is not None:
            return places, weight
        return places, Q4Weight.quantize(places.matrix, group_size, scales_dtype)

    if process_group is not _ALONE:
        from wgpu_q4.nn.ranks.tying import tie_ranks  # it imports torch.distributed

        return tie_ranks(process_group, prepare, device, accuracy)
    places, held = prepare()
    upload(held, device)  # fails here if it is too large
    put_in(places, held, device, accuracy)
    matrix = places.matrix
    bytes_before = matrix.numel() * matrix.element_size()
    return TieReport(held, tuple(places.modules), matrix.dtype, bytes_before, held.nbytes)


def _check_weight(
    weight: object,
    matrix: nn.Parameter,
    group_size: int | None,
    scales_dtype: DTypeLike | None,
) -> None:
    """Refuse a given weight that is not the model's matrix, or not what else was asked for."""
    if not isinstance(weight, Q4Weight):
        if isinstance(weight, Quantized | Q4Tensor):
            raise TypeError(
                f"weight must be a Q4Weight, not {type(weight).__name__}: pass its q4weight"
            )
        raise TypeError(
            f"weight must be a Q4Weight, not {type(weight).__name__}: wgpu_q4.quantize makes one "
            f"of a float matrix, wgpu_q4.load_file and wgpu_q4.from_gguf read one from a file"
        )
    if weight.shape != tuple(matrix.shape):
        raise FormatError(
            f"weight has shape [V, K] = {list(weight.shape)}; the model's tied matrix has "
            f"{list(matrix.shape)}"
        )
    if group_size is not None and group_size != weight.group_size:
        raise FormatError(
            f"group_size is {group_size}, but the groups of weight have {weight.group_size} "
            f"values: weight is used as it is, so leave group_size out"
        )
    held = weight.scales.dtype.name
    if scales_dtype is not None and float_dtype("scales_dtype", scales_dtype, FormatError) != held:
        raise FormatError(
            f"scales_dtype is {scales_dtype}, but the scales of weight are {held}: weight is used "
            f"as it is, so leave scales_dtype out"
        )


def put_in(places: Places, weight: Q4Weight, device: Any, accuracy: Accuracy) -> None:
    """Replace the modules that held a model's tied matrix by modules that read ``weight``."""
    replacement: dict[nn.Module, Quantized] = {}
    dtype = places.matrix.dtype
    for module, scale in places.scales.items():
        held = next(iter(replacement.values()), weight)  # the first module, to which others tie
        replacement[module] = (
            QuantizedEmbedding(
                held,
                device=device,
                embed_scale=scale,
                dtype=dtype,
                padding_idx=module.padding_idx,
            )
            if isinstance(module, nn.Embedding)
            else QuantizedLinear(
                held,
                module.bias,  # type: ignore[arg-type]
                device=device,
                accuracy=accuracy,
                dtype=dtype,
            )
        )
    places.replace(replacement)
    replace_methods(places.model, places.matrix.numel())


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

    def _repr_html_(self) -> str:
        vocab, embed_dim = self.weight.shape
        rows: list[rich.Row] = [
            ("read by", ", ".join(self.replaced)),
            ("matrix", f"{vocab:,} × {embed_dim:,}, group {self.weight.group_size}"),
            (f"before, {dtype_name(self.dtype)}", self.bytes_before),
            ("now, 4 bits, once", self.bytes_after),
            ("two untied 4-bit copies", self.bytes_untied),
            ("saved", f"{self.bytes_saved:,} bytes"),
        ]
        return rich.table("One 4-bit matrix for embedding and head", rows)
