"""Export to ExecuTorch with a tied 4-bit matrix stored once.

    program = torch.export.export(model, inputs)
    program, report = share_tied_weights(program)
    edge = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()])
    edge.to_executorch()

The file runs on ExecuTorch's Vulkan and WebGPU runtimes, which read the same delegate.

* `share_tied_weights`        the pass: one packed matrix, read by the embedding and by the head
* `detect_tied_linear_weight` which linears hold an embedding's matrix
* `exportable`                a model that went through `wgpu_q4.nn.tie`, ready for torch.export
* `inspect_pte`               what is in a ``.pte``, and what it shares

The steps of the pass, a file each: `constants` reads tensors of a program, `operands` and
`activations` say what a 4-bit matrix and 8-bit activations look like in a graph, `uses` finds who
reads a matrix, `contents` compares matrices by their bytes, `detect` and `groups` find the tied
ones, `rewrite` replaces their readers by what `emit` writes, `forms` and `recognize` know which of
it runs, and `share` puts these together.  `lowering` teaches ExecuTorch's partitioner the result.

Requires the extra ``executorch``; `versions` says which wheels, and importing this checks them.
"""

from wgpu_q4.executorch.versions import check_ops, check_versions

check_versions()
check_ops()

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
