"""Export to ExecuTorch's Vulkan backend with a tied 4-bit matrix stored once.

    program = torch.export.export(model, inputs)
    program, report = share_tied_weights(program)
    edge = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()])
    edge.to_executorch()

* `share_tied_weights`        the pass: one packed blob, read by the embedding and by the head
* `detect_tied_linear_weight` which linears hold an embedding's matrix
* `exportable`                a model that went through `wgpu_q4.nn.tie`, ready for torch.export
* `inspect_pte`               what is in a ``.pte``, and what it shares

One file per idea: `constants` reads tensors of a program, `operands` says what a 4-bit matrix looks
like in a graph, `uses` finds who reads one, `contents` compares matrices by their bytes, `detect`
and `share` put these together, `emit` writes ExecuTorch's ops.

Requires the extra ``executorch``; `versions` says which wheels, and importing this checks them.
"""

from wgpu_q4.executorch.versions import check_versions

check_versions()

from wgpu_q4.executorch.detect import TiedLinears, detect_tied_linear_weight  # noqa: E402
from wgpu_q4.executorch.exportable import exportable  # noqa: E402
from wgpu_q4.executorch.report import LeftAlone, SharedWeight, ShareReport  # noqa: E402
from wgpu_q4.executorch.share import share_tied_weights  # noqa: E402
from wgpu_q4.pte import PteReport, inspect_pte  # noqa: E402

__all__ = [
    "LeftAlone",
    "PteReport",
    "ShareReport",
    "SharedWeight",
    "TiedLinears",
    "check_versions",
    "detect_tied_linear_weight",
    "exportable",
    "inspect_pte",
    "share_tied_weights",
]
