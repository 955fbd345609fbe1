"""Write the tied matrix of a checkpoint into a packed file: safetensors, 4 bits a value, once.

The checkpoint is a Hugging Face folder, a safetensors file or a GGUF file; the matrix is found by
the config and by names.  A matrix that is 4-bit already is taken over as it is, one of floats is
quantized, a few rows at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from wgpu_q4.files import save_file
from wgpu_q4.foreign.tied import load_tied
from wgpu_q4.weight import Q4Weight

HELP = "write the tied matrix of a checkpoint into a packed file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, .safetensors or .gguf")
    parser.add_argument("out", metavar="OUT.safetensors", type=Path)
    parser.add_argument("--name", help="of the matrix in the checkpoint, if names do not tell")
    parser.add_argument("--key", default="weight", help="its name in the file (%(default)s)")
    parser.add_argument("--group-size", type=int, metavar="G", help="of a float matrix (32)")
    parser.add_argument("--scales", choices=("float16", "float32"), help="dtype of the scales")
    parser.add_argument(
        "--rule",
        choices=("absmax", "mse"),
        default="absmax",
        help="of a float matrix (%(default)s)",
    )
    parser.add_argument(
        "--lossy", action="store_true", help="quantize again a 4-bit matrix that does not fit"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(options: argparse.Namespace) -> int:
    """Load, save, and print what was written."""
    out: Path = options.out
    if out.exists() and not options.force:
        raise FileExistsError(f"{out} is there already: --force replaces it")
    done = 0
    with _bar() as more_done:

        def count(rows: int) -> None:
            nonlocal done
            done += rows
            more_done(rows)

        weight = load_tied(
            options.checkpoint,
            options.group_size,
            options.scales,
            name=options.name,
            rule=options.rule,
            progress=count,
            lossy=options.lossy,
        )
    save_file({options.key: weight}, out)
    print(json.dumps(_figures(options, weight, done)) if options.json else _text(out, weight, done))
    return 0


@contextmanager
def _bar() -> Iterator[Callable[[int], object]]:
    """Show a bar of the rows that are quantized, where there is a terminal and tqdm."""
    if find_spec("tqdm") is None or not sys.stderr.isatty():
        yield lambda rows: None
        return
    from tqdm import tqdm

    with tqdm(unit=" rows", unit_scale=True, leave=False) as bar:
        yield bar.update


def _figures(options: argparse.Namespace, weight: Q4Weight, quantized: int) -> dict[str, object]:
    vocab, embed_dim = weight.shape
    return {
        "out": str(options.out),
        "key": options.key,
        "vocab": vocab,
        "embed_dim": embed_dim,
        "group_size": weight.group_size,
        "scales": str(weight.scales.dtype),
        "bytes": weight.nbytes,
        "bytes_float16": 2 * vocab * embed_dim,
        "quantized": bool(quantized),
        "sha256": weight.sha256,
    }


def _text(out: Path, weight: Q4Weight, quantized: int) -> str:
    vocab, embed_dim = weight.shape
    floats = 2 * vocab * embed_dim
    origin = "quantized from floats" if quantized else "4-bit already, taken over as it was"
    return (
        f"{out}: {vocab:,} × {embed_dim:,} in groups of {weight.group_size}, "
        f"{weight.scales.dtype} scales; {origin}\n"
        f"  {weight.nbytes:,} bytes, once for both uses; {floats:,} in float16 "
        f"({floats / weight.nbytes:.1f}× as many)"
    )
