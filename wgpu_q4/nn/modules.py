"""The modules: `QuantizedEmbedding` and `QuantizedLinear`."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn

from wgpu_q4.arrays import DTypeLike
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.naming import dtype_name, torch_float
from wgpu_q4.nn.replaceable import check_embedding, check_linear
from wgpu_q4.nn.shared import Quantized
from wgpu_q4.nn.tensor import Q4Tensor
from wgpu_q4.ops.arguments import check_option
from wgpu_q4.weight import Q4Weight


class QuantizedEmbedding(Quantized, nn.Embedding):  # type: ignore[misc]
    """Token embedding that reads a 4-bit matrix; use it where ``nn.Embedding`` stood.

    Rows are exact: each value is ``(u − 8) · scale`` in float32, rounded once to the module's
    dtype.  That is float32 unless ``dtype`` says otherwise, and follows the model through
    ``.half()``, ``.bfloat16()`` and ``.to(dtype)``.

    Args:
        weight: the matrix ``[V, K]``, or another module of this package: the two are tied then.
        device: where it is read, as in `wgpu_q4.embedding`; the default device if None.  With
            ``"host"`` there are rows, also of a file larger than memory, and no `as_linear`.
        embed_scale: multiplies every row after rounding, as Gemma's embeddings do.  A tensor is
            rounded to the module's dtype first, a float is not.
        dtype: of the result; float16, bfloat16, float32 or float64, as torch or numpy write it.
        padding_idx: as in ``nn.Embedding``: the id whose row an adapter does not train, or None.
    """

    embed_scale: Tensor | float | None

    def __init__(
        self,
        weight: Q4Weight | Q4Tensor | Quantized,
        *,
        device: Any = None,
        embed_scale: Tensor | float | None = None,
        dtype: DTypeLike = torch.float32,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__(weight, device, torch_float(dtype))
        self.num_embeddings, self.embedding_dim = self.q4weight.shape
        # What else an nn.Embedding has; peft's adapters read it.
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, None, 2.0
        self.scale_grad_by_freq, self.sparse = False, False
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
        scales_dtype: DTypeLike = "float16",
        device: Any = None,
    ) -> QuantizedEmbedding:
        """Quantize an embedding: ``nn.Embedding``, or a subclass that only scales its rows.

        Raises:
            TypeError: an embedding that does something else as well.
            FormatError: ``group_size`` does not fit the rows, or a value is not finite.
        """
        scale = check_embedding(embedding, "embedding")
        matrix = embedding.weight
        weight = Q4Weight.quantize(matrix, group_size, scales_dtype)
        options: dict[str, Any] = {"dtype": matrix.dtype, "padding_idx": embedding.padding_idx}
        return cls(weight, device=device, embed_scale=scale, **options)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows ``ids.shape + (K,)`` in `dtype`, for ids of any integer type and shape.

        Raises:
            TypeError: ids that are not integers.
            IndexError: an id outside ``0..V−1``; the message names the first.
        """
        rows = self._rows(ids, self.dtype)
        if isinstance(self.embed_scale, Tensor):
            return rows * self.embed_scale.to(rows)
        return rows if self.embed_scale is None else rows * self.embed_scale

    def as_linear(
        self, x: Tensor, bias: Tensor | None = None, accuracy: Accuracy = "exact"
    ) -> Tensor:
        """``x @ W.T + bias``: the same matrix as an output head; ``embed_scale`` is not in it.

        Args:
            x: ``[..., K]``, float16, bfloat16 or float32; float64 is computed in float32.
            bias: ``[V]`` or None.
            accuracy: as in `wgpu_q4.linear`.

        Returns:
            ``[..., V]`` in the dtype of ``x``, accumulated in float32.

        Raises:
            ValueError: an accuracy that does not exist.
        """
        check_option("accuracy", accuracy, get_args(Accuracy))
        return self._linear(x, bias, accuracy)

    def extra_repr(self) -> str:
        scale = "" if self.embed_scale is None else f", embed_scale={float(self.embed_scale):g}"
        return f"{self._sizes()}, dtype={dtype_name(self.dtype)}{scale}"


class QuantizedLinear(Quantized, nn.Linear):  # type: ignore[misc]
    """Output head that reads a 4-bit matrix; use it where ``nn.Linear`` stood.

    Pass it a `QuantizedEmbedding` and the two are tied: they hold one matrix, and a state dict that
    names it under one of them loads for both.

    Args:
        weight: the matrix ``[V, K]``, or another module of this package: the two are tied then.
        bias: ``[V]`` or None.  A parameter is kept as it is, and no longer asks for gradients.
        device: where the matrix is read, as in `wgpu_q4.linear`; the default device if None.
        accuracy: ``"exact"``, ``"fast"`` or ``"int8"``, as in `wgpu_q4.linear`.
        dtype: what ``weight.dtype`` says, that of ``weight`` by default, else float32; the result
            has the dtype of x.
    """

    bias: nn.Parameter | None  # type: ignore[assignment]

    def __init__(
        self,
        weight: Q4Weight | Q4Tensor | Quantized,
        bias: Tensor | None = None,
        *,
        device: Any = None,
        accuracy: Accuracy = "exact",
        dtype: DTypeLike | None = None,
    ) -> None:
        if dtype is None:
            dtype = weight.dtype if isinstance(weight, Quantized | Q4Tensor) else torch.float32
        super().__init__(weight, device, torch_float(dtype))
        check_option("accuracy", accuracy, get_args(Accuracy))
        self.accuracy: Accuracy = accuracy
        self.out_features, self.in_features = self.q4weight.shape
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
        scales_dtype: DTypeLike = "float16",
        device: Any = None,
        accuracy: Accuracy = "exact",
    ) -> QuantizedLinear:
        """Quantize an ``nn.Linear``; its bias is kept, the parameter itself.

        Raises:
            TypeError: a subclass with a forward of its own.
            ValueError: an accuracy that does not exist.
            FormatError: ``group_size`` does not fit the rows, or a value is not finite.
        """
        check_linear(linear, "linear")
        check_option("accuracy", accuracy, get_args(Accuracy))
        weight = Q4Weight.quantize(linear.weight, group_size, scales_dtype)
        dtype = linear.weight.dtype
        return cls(weight, linear.bias, device=device, accuracy=accuracy, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + bias``: ``[..., K]`` to ``[..., V]``, see `QuantizedEmbedding.as_linear`."""
        return self._linear(x, self.bias, self.accuracy)

    def extra_repr(self) -> str:
        accuracy = "" if self.accuracy == "exact" else f", accuracy={self.accuracy}"
        return f"{self._sizes()}, bias={self.bias is not None}{accuracy}"
