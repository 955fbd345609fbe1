"""The perplexity of SmolLM2-135M on a text, with its tied matrix as it is and in 4 bits.

    PYTHONPATH=examples python -m benchmarks.perplexity TEXT

Each rule of `wgpu_q4.quantize` gives a matrix; dequantized, it takes the place of the model's tied
one in torch.  The text is cut into windows of 1024 tokens; each token of a window but the first is
predicted from those before it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from smollm2 import find_model, quiet_libraries
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from wgpu_q4 import Q4Weight

LIBRARIES = ("torch", "transformers", "gguf", "accelerate", "tqdm")
WINDOW = 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("text", type=Path, help="a text in UTF-8")
    parser.add_argument("--tokens", type=int, default=8 * WINDOW, help="of the text, at most")
    parser.add_argument("--group-size", type=int, default=32, metavar="G")
    arguments = parser.parse_args()
    quiet_libraries()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = find_model(LIBRARIES, "hf")
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
    }
    content = arguments.text.read_bytes()
    ids = AutoTokenizer.from_pretrained(**source)(content.decode(), return_tensors="pt").input_ids
    ids = ids[0, : arguments.tokens]
    print(f"{ids.numel()} tokens of a text with SHA-256 {hashlib.sha256(content).hexdigest()}")
    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    model.eval()
    matrix = model.get_input_embeddings().weight
    floats = matrix.detach().clone()
    for name, values in matrices(floats, arguments.group_size):
        with torch.no_grad():
            matrix.copy_(values)
        off = float((values - floats).norm() / floats.norm())
        print(f"{name:<8} error {100 * off:5.2f} % of rms, perplexity {perplexity(model, ids):.4f}")
    return 0


def matrices(floats: torch.Tensor, group_size: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the matrix, and what each rule makes of it."""
    yield "float", floats
    for rule in ("absmax", "mse"):
        weight = Q4Weight.quantize(floats, group_size, rule=rule)
        yield rule, torch.from_numpy(weight.dequantize())


@torch.inference_mode()
def perplexity(model: Any, ids: torch.Tensor) -> float:
    """Return the exponential of the mean negative log-likelihood of the tokens that follow."""
    total, count = 0.0, 0
    windows = torch.split(ids, WINDOW)
    for window in tqdm(windows, unit="window", leave=False):
        if window.numel() < 2:
            continue
        logits = model(window[None], use_cache=False).logits[0, :-1].float()
        total += float(cross_entropy(logits, window[1:], reduction="sum"))
        count += window.numel() - 1
    return float(torch.tensor(total / count).exp())


if __name__ == "__main__":
    sys.exit(main())
