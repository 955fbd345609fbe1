"""Write the tied matrix of a checkpoint into a packed file.

The checkpoint is a Hugging Face folder, a safetensors file or a GGUF file; the matrix is found by
the config and by names.  The file is safetensors: 4 bits a value and the scales, once.  A matrix
that is 4-bit already is taken over as it is, one of floats is quantized, a few rows at a time.

Examples:
  wgpu-q4 pack SmolLM2-135M-Instruct tied.safetensors
  wgpu-q4 pack model.Q6_K.gguf tied.safetensors --rule mse
  wgpu-q4 pack model.safetensors tied.safetensors --group-size 64 --json | jq .error

--json prints:
  out, key         the file, and the name of the matrix in it
  vocab, embed_dim, group_size, scales
                   V, K and G of the matrix, and the dtype of its scales
  bytes            of the packed values and their scales
  bytes_float16    of the matrix in float16
  source           the matrix in the checkpoint: kind (a dtype, or who packed it), bytes
  saved_percent    how much less bytes are than those of the source
  error            rms_percent, of the rms of the matrix; largest, in absolute terms; exact, true
                   if every value is kept
  sha256           of the packed values
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wgpu_q4.bench.shapes import positive
from wgpu_q4.commands.answer import Answer
from wgpu_q4.commands.progress import bar
from wgpu_q4.files import save_file
from wgpu_q4.foreign.tied import Wanted, find_tied


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, .safetensors or .gguf")
    parser.add_argument("out", metavar="OUT.safetensors", type=Path, help="the file to write")
    parser.add_argument("--name", help="of the matrix in the checkpoint, if names do not tell")
    parser.add_argument("--key", default="weight", help="its name in the file (%(default)s)")
    parser.add_argument("--group-size", type=positive, metavar="G", help="of a float matrix (32)")
    parser.add_argument("--scales", choices=("float16", "float32"), help="dtype of the scales")
    rule = "of a float matrix (%(default)s); mse takes longer and loses less"
    parser.add_argument("--rule", choices=("absmax", "mse"), default="absmax", help=rule)
    lossy = "quantize again a 4-bit matrix that does not fit"
    parser.add_argument("--lossy", action="store_true", help=lossy)
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")


def run(options: argparse.Namespace) -> Answer:
    """Load, compare, save, and return what was written.

    Raises:
        FileExistsError: the file is there, and may not be replaced.
    """
    out: Path = options.out
    if out.exists() and not options.force:
        raise FileExistsError(f"{out} is there already: --force replaces it")
    with bar(unit=" rows", unit_scale=True) as shown:
        progress = None if shown is None else shown.update
        size, scales, rule = options.group_size, options.scales, options.rule
        wanted = Wanted(size, scales, rule, None, progress, options.lossy)
        source = find_tied(options.checkpoint, options.name, wanted)
    weight, error = source.weight, source.error()
    save_file({options.key: weight}, out)
    vocab, embed_dim = weight.shape
    document: dict[str, Any] = {
        "out": str(out),
        "key": options.key,
        "vocab": vocab,
        "embed_dim": embed_dim,
        "group_size": weight.group_size,
        "scales": str(weight.scales.dtype),
        "bytes": weight.nbytes,
        "bytes_float16": 2 * vocab * embed_dim,
        "source": {"kind": source.kind, "bytes": source.nbytes},
        "saved_percent": 100 * (1 - weight.nbytes / source.nbytes),
        "error": {
            "rms_percent": 100 * error.rms,
            "largest": error.largest,
            "exact": error.largest == 0,
        },
        "sha256": weight.sha256,
    }
    return Answer(document, _text(document))


def _text(found: dict[str, Any]) -> str:
    source, error, saved = found["source"], found["error"], found["saved_percent"]
    lost = f"{error['rms_percent']:.3g} % of the rms, no value by more than {error['largest']:.3g}"
    return (
        f"{found['out']}: {found['vocab']:,} × {found['embed_dim']:,} in groups of "
        f"{found['group_size']}, {found['scales']} scales, from {source['kind']}\n"
        f"  bytes  {found['bytes']:,}, once for both uses; {source['bytes']:,} in the checkpoint: "
        f"{abs(saved):.1f} % {'saved' if saved >= 0 else 'more'}\n"
        f"  error  {'0: exact grid, every value is kept' if error['exact'] else lost}"
    )
