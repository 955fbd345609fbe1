"""The gradients of the custom ops of `wgpu_q4.torch_ops`, which imports this module.

The gradient of ``x @ W.T + bias`` with respect to x is ``g @ W``, computed from the packed bytes;
with respect to the bias it is the sum of g.  ``y @ W`` in its turn has the gradient ``g @ W.T``, so
that gradients of gradients exist too.  The matrix is frozen and has none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_OPS = torch.ops.wgpu_q4


def _keep_matrix(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weights, scales, group_size, bias, *rest = inputs
    ctx.save_for_backward(weights, scales)
    ctx.group_size = group_size
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.device = rest[1] if rest else ""


def _of_linear(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    weights, scales = ctx.saved_tensors
    of_x = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = _OPS.linear_transposed_q4gsw(gradient, weights, scales, ctx.group_size, ctx.device)
    if any(ctx.needs_input_grad[4:5]):  # a bias that was left out is no input
        of_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0).to(ctx.bias_dtype)
    return of_x, None, None, None, of_bias


def _of_linear_on(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return (*_of_linear(ctx, gradient), None, None)


def _keep_transposed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weights, scales, ctx.group_size, ctx.device = inputs
    ctx.save_for_backward(weights, scales)


def _of_transposed(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    weights, scales = ctx.saved_tensors
    of_y = _OPS.linear_q4gsw_on(
        gradient, weights, scales, ctx.group_size, None, "exact", ctx.device
    )
    return of_y, None, None, None, None


torch.library.register_autograd("wgpu_q4::linear_q4gsw", _of_linear, setup_context=_keep_matrix)
torch.library.register_autograd(
    "wgpu_q4::linear_q4gsw_on", _of_linear_on, setup_context=_keep_matrix
)
torch.library.register_autograd(
    "wgpu_q4::linear_transposed_q4gsw", _of_transposed, setup_context=_keep_transposed
)
