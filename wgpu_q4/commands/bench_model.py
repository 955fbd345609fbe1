"""The part of ``wgpu-q4 bench`` that measures a whole model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from wgpu_q4 import __version__
from wgpu_q4.bench.model import rates, step_times
from wgpu_q4.bench.model_peers import PEERS, Task
from wgpu_q4.bench.shapes import positive
from wgpu_q4.bench.timing import Effort
from wgpu_q4.commands.answer import UsageError
from wgpu_q4.commands.progress import progress
from wgpu_q4.decoder import Decoder
from wgpu_q4.decoder.weights import Body
from wgpu_q4.device import Context


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options about a model."""
    add = parser.add_argument_group("a whole model, in place of a matrix").add_argument
    number = dict[str, Any](type=positive, metavar="N")
    file = "a GGUF file, or a folder of Hugging Face's"
    body = "layers of a folder's model, float16 by default; a GGUF file says it by its types"
    add("--model", type=Path, metavar="MODEL", help=file)
    add("--prompt", **number, help="ids of a prompt; 512, on a processor 64")
    add("--tokens", **number, help="ids to generate; 128, on a processor 16")
    add("--repeats", **number, default=3, help="measurements, of which the median counts (3)")
    add("--body", choices=("float16", "q4gsw"), help=body)
    add("--without", nargs="+", choices=tuple(PEERS), default=[], help="leave these others out")


def measure_model(options: argparse.Namespace, context: Context) -> dict[str, Any]:
    """Measure a model beside others that are installed; print the figures, and return them."""
    prompt, tokens = (64, 16) if context.is_software else (512, 128)
    counts = options.prompt or prompt, options.tokens or tokens, options.repeats
    task = Task(options.model, *counts)
    peers = [name for name in PEERS if name not in options.without]
    with progress(2 + len(peers), options.json) as shown:
        say = shown.say
        shown.begin("weights")
        say(f"{context.adapter_summary}, {context.implementation_summary}")
        decoder = _decoder(options, task, context)
        held = decoder.nbytes
        say(f"{task.model.name}: {_shape(decoder)}")
        say("bytes held: " + ", ".join(f"{name} {count:,}" for name, count in held.items()))
        shown.begin("wgpu_q4")
        found = rates(decoder, task.prompt, task.count, task.repeats)
        parts = step_times(decoder, Effort(repeats=8, seconds=0.5))
        of_prompt, of_steps = f"prefill of {task.prompt}", f"decode of {task.count}"
        say(f"\n{of_prompt:>16} {of_steps:>16}   tokens a second")
        say(_line(found.prefill, found.decode, f"wgpu_q4 {__version__}"))
        measured = (shown.attempt(name, partial(PEERS[name], task)) for name in peers)
        others = []
        for other in filter(None, measured):
            others.append(asdict(other))
            say(_line(other.prefill, other.decode, other.name))
        say(
            f"\na step of wgpu_q4: {1e3 / found.decode:.3f} ms. On the device, by {parts.clock}: "
            f"embedding {1e3 * parts.embedding:.3f} ms, layers {1e3 * parts.layers:.3f} ms, head "
            f"{1e3 * parts.head:.3f} ms. The host encodes for {1e3 * found.host:.3f} ms meanwhile."
        )
    return {
        "model": task.model.name,
        "shape": _shape(decoder),
        "bytes": held,
        "prompt": task.prompt,
        "tokens": task.count,
        "tokens_per_second": {"prefill": found.prefill, "decode": found.decode},
        "step": {"host": found.host, **asdict(parts)},
        "others": others,
        "left_out": shown.left_out,
    }


def _decoder(options: argparse.Namespace, task: Task, context: Context) -> Decoder:
    """Return the model on the device.

    Raises:
        FormatError: a model that the decoder does not run.
        UsageError: options that do not go with the model.
    """
    if task.model.is_dir():
        body: Body = options.body or "float16"
        decoder = Decoder.from_hf(task.model, body=body, device=context.device)
    elif options.body is not None:
        raise UsageError("--body is for the model of a folder: a GGUF file says it by its types")
    else:
        decoder = Decoder.from_gguf(task.model, device=context.device)
    if max(task.prompt, task.count + 1) > decoder.capacity:
        raise UsageError(
            f"this model is measured with a cache of {decoder.capacity} positions, which must hold "
            f"--prompt ids, and --tokens and one more"
        )
    return decoder


def _shape(decoder: Decoder) -> str:
    config = decoder.config
    return (
        f"{config.family}, {config.layers} layers, hidden {config.hidden}, vocabulary "
        f"{config.vocab}; cache of {decoder.capacity} positions"
    )


def _line(prefill: float, decode: float, name: str) -> str:
    return f"{prefill:>16,.1f} {decode:>16,.1f}   {name}"
