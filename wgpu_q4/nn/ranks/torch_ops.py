"""The methods of `RankRows` as torch custom ops, so that compiled models and gradients pass.

    torch.ops.wgpu_q4.embedding_of_ranks(indices, rows, dtype)
    torch.ops.wgpu_q4.linear_of_ranks(x, bias, rows, accuracy)
    torch.ops.wgpu_q4.linear_transposed_of_ranks(y, rows)

``rows`` is `RankRows.key`: a custom op takes no objects.  A graph works in the process that made
it, on all ranks alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wgpu_q4.nn.ranks.rows import rows_of

_OPS = torch.ops.wgpu_q4


@torch.library.custom_op(
    "wgpu_q4::embedding_of_ranks",
    mutates_args=(),
    schema="(Tensor indices, str rows, ScalarType dtype) -> Tensor",
)
def embedding_of_ranks(indices: Tensor, rows: str, dtype: torch.dtype) -> Tensor:
    """Return `RankRows.look_up`."""
    return rows_of(rows).look_up(indices, dtype)


@embedding_of_ranks.register_fake
def _(indices: Tensor, rows: str, dtype: torch.dtype) -> Tensor:
    return indices.new_empty((*indices.shape, rows_of(rows).shape[1]), dtype=dtype)


@torch.library.custom_op(
    "wgpu_q4::linear_of_ranks",
    mutates_args=(),
    schema="(Tensor self, Tensor? bias, str rows, str accuracy) -> Tensor",
)
def linear_of_ranks(self: Tensor, bias: Tensor | None, rows: str, accuracy: str) -> Tensor:
    """Return `RankRows.multiply`."""
    asked: Any = accuracy
    return rows_of(rows).multiply(self.detach(), None if bias is None else bias.detach(), asked)


@linear_of_ranks.register_fake
def _(self: Tensor, bias: Tensor | None, rows: str, accuracy: str) -> Tensor:
    return self.new_empty((*self.shape[:-1], rows_of(rows).shape[0]))


@torch.library.custom_op(
    "wgpu_q4::linear_transposed_of_ranks",
    mutates_args=(),
    schema="(Tensor self, str rows) -> Tensor",
)
def linear_transposed_of_ranks(self: Tensor, rows: str) -> Tensor:
    """Return `RankRows.multiply_transposed`."""
    return rows_of(rows).multiply_transposed(self.detach())


@linear_transposed_of_ranks.register_fake
def _(self: Tensor, rows: str) -> Tensor:
    return self.new_empty((*self.shape[:-1], rows_of(rows).shape[1]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, bias, ctx.rows, _ = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype


def _of_linear(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """All ranks have the gradient of all logits; each brings its rows' part of that of x."""
    of_x = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = _OPS.linear_transposed_of_ranks(gradient, ctx.rows)
    if ctx.needs_input_grad[1]:
        of_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0).to(ctx.bias_dtype)
    return of_x, of_bias, None, None


def _keep_transposed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.rows = inputs


def _of_transposed(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return _OPS.linear_of_ranks(gradient, None, ctx.rows, "exact"), None


torch.library.register_autograd("wgpu_q4::linear_of_ranks", _of_linear, setup_context=_keep)
torch.library.register_autograd(
    "wgpu_q4::linear_transposed_of_ranks", _of_transposed, setup_context=_keep_transposed
)
