"""The perplexity of SmolLM2-135M on a text, with its matrices as they are and in fewer bits.

    PYTHONPATH=examples python -m benchmarks.perplexity TEXT

The tied matrix in 4 bits, by each rule of `wgpu_q4.quantize`, with the layers in float16 and in
4 bits: the numbers, dequantized, take the place of the model's in torch.  The text is cut into
windows of 1024 tokens; each token of a window but the first is predicted from those before it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
    floats = {name: values.detach().clone() for name, values in model.named_parameters()}
    for choice in CHOICES:
        error = put(model, floats, choice, arguments.group_size)
        print(
            f"{choice.name:<44} error {error}, perplexity {perplexity(model, ids):.4f}", flush=True
        )
    return 0


Number = Literal["float", "float16", "absmax", "mse"]
"""As the model has it, rounded to float16, or quantized by a rule of `wgpu_q4.quantize`."""


class Choice(NamedTuple):
    """The numbers of a model's matrices: of the tied one, and of the layers."""

    tied: Number
    body: Number

    @property
    def name(self) -> str:
        return f"tied matrix {self.tied}, layers {self.body}"


CHOICES = (
    Choice("float", "float"),
    Choice("absmax", "float16"),
    Choice("mse", "float16"),
    Choice("absmax", "absmax"),
    Choice("mse", "mse"),
)


@torch.no_grad()
def put(model: Any, floats: Mapping[str, torch.Tensor], choice: Choice, group_size: int) -> str:
    """Give the matrices of ``model`` the numbers of a choice; return how far off they are."""
    squares = {"tied": [0.0, 0.0], "layers": [0.0, 0.0]}
    for name, values in model.named_parameters():
        if values.ndim != 2:
            continue
        part, number = ("layers", choice.body) if ".layers." in name else ("tied", choice.tied)
        values.copy_(rounded(floats[name], number, group_size))
        squares[part][0] += float((values - floats[name]).square().sum())
        squares[part][1] += float(floats[name].square().sum())
    found = [f"{part} {100 * (off / all_) ** 0.5:5.2f} %" for part, (off, all_) in squares.items()]
    return ", ".join(found)


def rounded(floats: torch.Tensor, number: Number, group_size: int) -> torch.Tensor:
    """Return the numbers that stand for ``floats``."""
    if number == "float":
        return floats
    if number == "float16":
        return floats.half()
    weight = Q4Weight.quantize(floats, group_size, rule=number)
    return torch.from_numpy(weight.dequantize())


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
