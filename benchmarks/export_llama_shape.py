"""What the pass costs at the size of Llama 3.2 1B's tied matrix, and what it saves in the file.

    python -m benchmarks.export_llama_shape tied
    python -m benchmarks.export_llama_shape untied

Each prints the seconds of the pass and of the whole export, the bytes of the ``.pte`` and of the
constants on the device, and the peak resident memory of the process; run both to compare the bytes.
The matrix is 128256 × 2048 random 4-bit values in groups of 32 with float32 scales; the untied
program has two different ones.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

from wgpu_q4.executorch import inspect_pte, share_tied_weights

VOCAB, EMBED_DIM, GROUP = 128256, 2048, 32


class Ends(nn.Module):
    """Embedding and head over torchao's dequantize; no float matrix is ever made."""

    def __init__(self, vocab: int, *, tied: bool) -> None:
        super().__init__()
        self.values, self.scales = random_matrix(vocab, 0)
        self.head_values, self.head_scales = (
            (self.values, self.scales) if tied else random_matrix(vocab, 1)
        )
        zeros = torch.zeros(vocab, EMBED_DIM // GROUP, dtype=torch.int8)
        self.zeros = nn.Parameter(zeros, requires_grad=False)

    def forward(self, ids: Tensor) -> Any:
        rows = nn.functional.embedding(ids, dequantize(self.values, self.scales, self.zeros))
        return nn.functional.linear(
            rows, dequantize(self.head_values, self.head_scales, self.zeros)
        )


def random_matrix(vocab: int, seed: int) -> tuple[nn.Parameter, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-8, 8, (vocab, EMBED_DIM), dtype=torch.int8, generator=generator)
    scales = torch.rand(vocab, EMBED_DIM // GROUP, generator=generator)
    return nn.Parameter(values, requires_grad=False), nn.Parameter(scales, requires_grad=False)


def dequantize(values: Tensor, scales: Tensor, zeros: Tensor) -> Any:
    return torch.ops.torchao.dequantize_affine(values, [1, GROUP], scales, zeros, torch.int8, -8, 7)


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=["tied", "untied"])
    parser.add_argument("--vocab", type=int, default=VOCAB)
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)

    model = Ends(arguments.vocab, tied=arguments.kind == "tied")
    print(f"model held: peak {peak_mebibytes():,.0f} MiB")
    started = time.perf_counter()
    program = torch.export.export(model, (torch.zeros(1, 8, dtype=torch.long),))
    before = time.perf_counter()
    program, report = share_tied_weights(program)
    passed = time.perf_counter() - before
    print(f"pass: {passed:.2f} s, peak {peak_mebibytes():,.0f} MiB\n{report}")
    del model
    edge = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()])
    del program
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pte"
        with path.open("wb") as file:
            edge.to_executorch().write_to_file(file)
        nbytes = path.stat().st_size
        device = inspect_pte(path).device
    for memory in device:
        print(f"constants on the device, {memory.target}: {memory.constants:,} bytes")
    print(
        f"{arguments.kind}: {nbytes:,} bytes; export {time.perf_counter() - started:.1f} s in all; "
        f"peak {peak_mebibytes():,.0f} MiB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
