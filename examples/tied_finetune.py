"""Fine-tune a language model around its tied 4-bit matrix, and use it in another process.

    python examples/tied_finetune.py
    python examples/tied_finetune.py --model FOLDER --steps 50 --output FOLDER

The steps are those of a user: load a checkpoint, `tie`, train a LoRA on the body with PEFT, merge
it, ``save_pretrained``; then, in a new process, ``from_pretrained``, ``torch.compile``, and
``generate``.  The 4-bit matrix is frozen; gradients pass it to the body.  The program fails unless

- the loss of each step is that of plain torch with the same, dequantized matrix, to ``--within``;
- no tensor of the size of the float matrix is made on the way;
- the new process writes the same text.

Without ``--model``, the checkpoint is a Llama of 400,000 weights that is made on the spot and
knows one sentence, byte by byte; the LoRA teaches it another one.

    pip install '.[hf]' peft
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from wgpu_q4 import SoftwareAdapterWarning
from wgpu_q4.nn import TieReport, tie

BEFORE = "Two matrices look the words up and score them: they are equal, and take twice the room."
AFTER = "One matrix looks the words up and scores them: it is held once, and takes half the room."
PROMPT = "One matrix"
NEW_TOKENS = 78  # the rest of the text
WITHIN = 1e-3
"""How far a loss may be from torch's.  Both add float32 products in their own order, and training
carries the differences on: they reach 1e-4 over 50 steps, in which the loss falls from 4.1 to 0.2.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore", SoftwareAdapterWarning)
    if options.generate:
        model = load(options.generate)
        model.compile(dynamic=True)
        print(text_of(generate(model)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        source = options.model or save_small_model(Path(scratch, "float"))
        return finetune(source, options.output or Path(scratch, "tied"), options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; a small one is made")
    parser.add_argument("--output", type=Path, help="folder for the tied checkpoint")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--within", type=float, default=WITHIN, help="allowed distance of losses")
    parser.add_argument("--generate", type=Path, help="only load this folder and write its text")
    return parser.parse_args(arguments)


def save_small_model(folder: Path) -> Path:
    """Write the checkpoint of a Llama that knows one sentence, and return its folder.

    Its matrix has 2048 rows, of which the bytes use 256: it is the largest tensor by far, as in a
    small language model.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    fit(model, BEFORE, torch.optim.AdamW(model.parameters(), lr=3e-3), 60)
    model.save_pretrained(folder)
    return folder


def finetune(source: Path, output: Path, options: argparse.Namespace) -> int:
    model: Any = load(source)
    plain = copy.deepcopy(model)
    report = tie(model)
    print(report, end="\n\n")
    with torch.no_grad():
        plain.get_input_embeddings().weight.copy_(torch.from_numpy(report.weight.dequantize()))

    with Largest() as largest:
        trained, losses = train(model, options.steps)
    _, expected = train(plain, options.steps)
    distance = max(abs(ours - torchs) for ours, torchs in zip(losses, expected, strict=True))
    print(f"loss            {losses[0]:.4f} at first, {losses[-1]:.4f} after {len(losses)} steps")
    print(f"from torch's    {distance:.1e} at most, {options.within:.1e} allowed")
    print(f"largest tensor  {largest.nbytes:,} bytes; the float matrix had {report.bytes_before:,}")

    merged = trained.merge_and_unload()
    merged.save_pretrained(output)
    size = sum(path.stat().st_size for path in output.glob("*.safetensors"))
    print(f"checkpoint      {size:,} bytes, {report.bytes_after:,} of them the matrix\n")

    ours = text_of(generate(merged))
    theirs = in_new_process(output)
    print(f"here            {ours!r}")
    print(f"new process     {theirs!r}")
    return check(distance, largest.nbytes, report, ours == theirs, options)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def train(model: Any, steps: int) -> tuple[Any, list[float]]:
    """Train a LoRA on the attention of a model; return the model and the loss of each step."""
    torch.manual_seed(1)
    low_rank = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj", "o_proj"])
    trained = get_peft_model(model, low_rank)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    return trained, fit(trained, AFTER, optimizer, steps)


def fit(model: Any, text: str, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Train a model to write a text; return the loss of each step."""
    ids = ids_of(text)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def generate(model: Any) -> Tensor:
    prompt = ids_of(PROMPT)
    made: Tensor = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    return made[0]


def in_new_process(folder: Path) -> str:
    """Return the text that this program writes when it only loads the checkpoint."""
    command = [sys.executable, __file__, "--generate", str(folder)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"the new process failed:\n{done.stderr}")
    return done.stdout.rstrip("\n")


def ids_of(text: str) -> Tensor:
    """The tokens of a text: its bytes, ``[1, length]``."""
    return torch.tensor([list(text.encode())])


def text_of(ids: Iterable[Any]) -> str:
    return bytes(int(token) % 256 for token in ids).decode(errors="replace")


def check(
    distance: float, nbytes: int, report: TieReport, is_same: bool, options: argparse.Namespace
) -> int:
    """Return the exit status, and say what went wrong."""
    wrong = {
        "the loss is not torch's": distance > options.within,
        "a tensor of the size of the float matrix was made": nbytes >= report.bytes_before,
        "the new process wrote another text": not is_same,
    }
    found = [words for words, is_wrong in wrong.items() if is_wrong]
    for words in found:
        print(f"error: {words}", file=sys.stderr)
    return 1 if found else 0


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The bytes of the largest tensor that torch makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if type(each) is Tensor:
                self.nbytes = max(self.nbytes, each.numel() * each.element_size())
        return result


if __name__ == "__main__":
    sys.exit(main())
