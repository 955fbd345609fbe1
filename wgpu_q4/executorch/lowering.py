"""Lets ExecuTorch's Vulkan partitioner take ``et_vk.linear_q4gsw`` from an exported program.

Upstream, that op comes into being after partitioning, when ExecuTorch fuses a dequantize and a
linear.  The partitioner refuses the op itself: its table allows the op float inputs only, and the
packed weight is uint8.  The partitioner takes a pattern, however, whatever that table says.  So
this module registers two patterns in ExecuTorch's own registry:

* the op alone, which needs no replacement;
* the op on activations that are quantized row by row, which becomes ``et_vk.linear_dq8ca_q4gsw``
  on the same packed parameter.  Embedding and head then name one value of the delegate's graph,
  and the Vulkan runtime packs that value once.

Importing this module registers them.  Programs without that op are partitioned as before.

An op of ``et_vk`` that no Vulkan delegate takes cannot run.  ExecuTorch says of it "Missing out
variants"; this module lets it say what to do.
"""

from __future__ import annotations

from typing import Any, NoReturn

import executorch.backends.vulkan.utils as utils
import torch
from executorch.backends.transforms.utils import create_constant_placeholder, get_param_tensor
from executorch.backends.vulkan.patterns.pattern_registry import (
    PatternMatch,
    register_pattern_detector,
    register_pattern_replacement,
)
from executorch.exir.dialects._ops import ops as exir_ops
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node

from wgpu_q4.errors import ExportError
from wgpu_q4.executorch.versions import SCHEMAS

_NAME = "wgpu_q4_linear_q4gsw"
_ROWS_NAME = "wgpu_q4_linear_dq8ca_q4gsw"


@register_pattern_detector(_NAME)  # type: ignore[untyped-decorator]
def _detect(node: Node) -> Any:
    if node.target != exir_ops.edge.et_vk.linear_q4gsw.default or _quantize(node) is not None:
        return None
    return PatternMatch(list(node.all_input_nodes), [node], [node], node)


@register_pattern_replacement(_NAME)  # type: ignore[untyped-decorator]
def _replace(program: ExportedProgram, graph_module: GraphModule, match: Any) -> None:
    """Leave the op as it is: it is what upstream's patterns are replaced by."""


@register_pattern_detector(_ROWS_NAME)  # type: ignore[untyped-decorator]
def _detect_rows(node: Node) -> Any:
    if node.target != exir_ops.edge.et_vk.linear_q4gsw.default:
        return None
    quantize = _quantize(node)
    if quantize is None:
        return None
    dequantize = node.args[0]
    return PatternMatch(list(quantize.args[:1]), [node], [node, dequantize, quantize], node)


@register_pattern_replacement(_ROWS_NAME)  # type: ignore[untyped-decorator]
def _replace_rows(program: ExportedProgram, graph_module: GraphModule, match: Any) -> None:
    """Replace the op and the quantization of its x by ``et_vk.linear_dq8ca_q4gsw``."""
    linear = match.anchor_node
    _, packed, scales, group_size, *bias = linear.args
    quantize = _quantize(linear)
    assert quantize is not None
    x, _, scale, zero_point = quantize.args[:4]
    weight = get_param_tensor(program, packed)
    assert weight is not None
    with graph_module.graph.inserting_before(next(iter(graph_module.graph.nodes))):
        sums = create_constant_placeholder(
            exp_program=program,
            graph=graph_module.graph,
            kind=InputKind.PARAMETER,
            name=f"{packed.name}_sums_{linear.name}",
            data=group_sums(weight, group_size),
        )
    with graph_module.graph.inserting_before(linear):
        fused = graph_module.graph.create_node(
            "call_function",
            exir_ops.edge.et_vk.linear_dq8ca_q4gsw.default,
            args=(x, scale, zero_point, packed, sums, scales, group_size, *bias),
        )
    fused.meta["val"] = linear.meta["val"]
    linear.replace_all_uses_with(fused)


def group_sums(packed: Tensor, group_size: int) -> Tensor:
    """Return the sum of each group's values, int32 ``[K/G, V]``.

    ExecuTorch's own pattern pads V to a multiple of 8 here.  Its shader does not expect that, and
    gives wrong logits for other V.

    Args:
        packed: uint8 ``[V, K/2]``, linear convention.
        group_size: ``G``, even.
    """
    pairs = packed.reshape(packed.shape[0], -1, group_size // 2)
    sums = (pairs & 15).sum(-1, dtype=torch.int32) + (pairs >> 4).sum(-1, dtype=torch.int32)
    return (sums - 8 * group_size).t().contiguous()


def _quantize(linear: Node) -> Node | None:
    """Return the op that quantizes the x of a linear dynamically; None if x is not quantized."""
    dequantize = linear.args[0]
    if not isinstance(dequantize, Node) or not utils.is_dequant_node(dequantize):
        return None
    quantize = dequantize.args[0]
    if not isinstance(quantize, Node) or not utils.is_quant_node(quantize):
        return None
    return quantize if utils.is_dynamic_qscale(quantize.args[2]) else None


def _refuse_outside_of_delegates() -> None:
    for name in SCHEMAS:

        def refuse(op: str = name) -> NoReturn:
            raise ExportError(
                f"et_vk.{op} is outside of every delegate of the Vulkan backend, and nothing else "
                f"runs it: lower the program with partitioner=[VulkanPartitioner()], whose "
                f"delegates ExecuTorch's Vulkan and WebGPU runtimes read. For another backend, "
                f"lower it without share_tied_weights"
            )

        # What ExecuTorch asks for when it meets an op outside of delegates.  It catches
        # RuntimeError only.
        getattr(exir_ops.edge.et_vk, name).default.to_out_variant = refuse


_refuse_outside_of_delegates()
