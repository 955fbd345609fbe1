"""Lets ExecuTorch's partitioner take ``et_vk.linear_q4gsw`` as it takes its own patterns.

Upstream, that op comes into being after partitioning, when a dequantize and a linear are fused; the
partitioner, met with the op itself, refuses it, since its table allows the op float inputs only and
the packed weight is uint8.  A pattern, however, is taken whatever the table says.  So this module
registers one more pattern, by upstream's own registry: the op alone, which is fused already.

Importing it registers.  Programs without that op are partitioned as before.
"""

from __future__ import annotations

from typing import Any

from executorch.backends.vulkan.patterns.pattern_registry import (
    PatternMatch,
    register_pattern_detector,
    register_pattern_replacement,
)
from executorch.exir.dialects._ops import ops as exir_ops
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

_NAME = "wgpu_q4_linear_q4gsw"


@register_pattern_detector(_NAME)  # type: ignore[untyped-decorator]
def _detect(node: Node) -> Any:
    if node.target != exir_ops.edge.et_vk.linear_q4gsw.default:
        return None
    return PatternMatch(list(node.all_input_nodes), [node], [node], node)


@register_pattern_replacement(_NAME)  # type: ignore[untyped-decorator]
def _replace(program: ExportedProgram, graph_module: GraphModule, match: Any) -> None:
    """Nothing to do: the op is what upstream's patterns are replaced by."""
