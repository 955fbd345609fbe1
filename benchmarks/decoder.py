"""Tokens a second of a whole model on the device, with random weights of a real model's shape.

    python -m benchmarks.decoder --model llama-3.2-1b --json FILE

measures, for one sequence, decode by steps of a submission, prefill by length of the prompt, decode
behind a long context, and how the time of a step divides: the device's, by kernel, and the host's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np

from wgpu_q4 import Q4Weight
from wgpu_q4.bench.timing import DeviceTimer, Effort
from wgpu_q4.decoder import AffineMatrix, Config, Decoder, LayerWeights, Rope, Weights
from wgpu_q4.decoder.weights import LayerMatrix
from wgpu_q4.device.commands import Commands
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels.decoder import WeightType


def _shape(
    layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, vocab: int
) -> Config:
    head_dim = hidden // heads
    return Config(
        family="llama",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=intermediate,
        vocab=vocab,
        epsilon=1e-5,
        activation="silu",
        qkv_bias=False,
        head_norm=False,
        post_norms=False,
        embedding_factor=1.0,
        query_factor=head_dim**-0.5,
        score_cap=None,
        logit_cap=None,
        windows=(0,) * layers,
        ropes=(Rope(5e5),),
        rope_of_layer=(0,) * layers,
        positions=8192,
        end_of_text=(),
    )


MODELS = {
    "llama-3.2-1b": _shape(16, 2048, 32, 8, 8192, 128256),
    "smollm2-135m": _shape(30, 576, 9, 3, 1536, 49152),
}


def main() -> int:
    """Measure what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoder", description="Measure a decoder with random weights."
    )
    parser.add_argument("--model", choices=MODELS, default="smollm2-135m")
    parser.add_argument("--layers", type=int, help="fewer layers, for a quick look")
    parser.add_argument("--body", choices=get_args(WeightType), default="q4gsw")
    accuracies = ("exact", "fast", "int8")
    parser.add_argument("--accuracy", choices=accuracies, default="exact", help="of the prompt")
    parser.add_argument("--cache", choices=("float16", "float32"), default="float16")
    parser.add_argument("--adapter", help="part of the adapter's name")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of a measurement")
    parser.add_argument("--prompt", type=int, default=37, help="ids before them")
    parser.add_argument("--steps", type=_numbers, default=[1, 4, 8, 16, 32], metavar="N,N")
    parser.add_argument("--prefill", type=_numbers, default=[37, 512, 2048], metavar="N,N")
    parser.add_argument("--context", type=_numbers, default=[2048], metavar="N,N")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    document = measure(chosen)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return the figures."""
    config = MODELS[chosen.model]
    if chosen.layers:
        many = {"windows": (0,) * chosen.layers, "rope_of_layer": (0,) * chosen.layers}
        config = Config(**{**vars(config), **many, "layers": chosen.layers})
    longest = max([chosen.prompt, *chosen.context, *chosen.prefill])
    decoder = Decoder(
        random_weights(config, chosen.body),
        device=chosen.adapter,
        capacity=min(config.positions, longest + chosen.tokens),
        cache=chosen.cache,
        accuracy=chosen.accuracy,
    )
    document: dict[str, Any] = {
        "model": chosen.model,
        "layers": config.layers,
        "body": chosen.body,
        "cache": chosen.cache,
        "accuracy": chosen.accuracy,
        "adapter": decoder.context.adapter_summary,
        "round trip": decoder.context.round_trip.name,
        "bytes": decoder.nbytes,
        "dispatches": len(decoder._engine.token.near) + len(decoder._engine.end),
        "tokens": chosen.tokens,
    }
    print(f"{chosen.model}, {config.layers} layers in {chosen.body}: {document['adapter']}")
    print("bytes held: " + ", ".join(f"{k} {v:,}" for k, v in decoder.nbytes.items()))
    ids = np.random.default_rng(3).integers(0, config.vocab, longest)
    document["device"] = device_times(decoder, ids[: chosen.prompt])
    document["decode"] = [
        decode(decoder, ids[: chosen.prompt], steps, chosen) for steps in chosen.steps
    ]
    best = max(document["decode"], key=lambda row: float(row["tokens a second"]))["steps"]
    document["decode"] += [decode(decoder, ids[:count], best, chosen) for count in chosen.context]
    document["prefill"] = [prefill(decoder, ids[:count], chosen) for count in chosen.prefill]
    return document


def decode(
    decoder: Decoder, ids: Any, steps: int, chosen: argparse.Namespace
) -> dict[str, float | int]:
    """Measure the steps of generation: all of it less the prompt and its first id.

    The time from the first id to the last would leave out the steps that the device takes before
    the host has the first.
    """

    def generation(new: int) -> tuple[float, float]:
        before, start = decoder._engine.submissions.seconds, time.perf_counter()
        made = sum(1 for _ in decoder.generate(ids, new, end_of_text=(), steps=steps))
        assert made == new
        return time.perf_counter() - start, decoder._engine.submissions.seconds - before

    count = chosen.tokens
    firsts = [generation(1)[0] for _ in range(chosen.repeats + 1)][1:]
    both = [generation(count + 1) for _ in range(chosen.repeats)]
    seconds = [whole - median(firsts) for whole, _ in both]
    one, submitting = min(seconds) / count, median(host for _, host in both) / count
    print(
        f"decode behind {len(ids)} ids, {steps} steps a submission: {1 / one:,.1f} tokens/s, "
        f"{one * 1e6:,.0f} µs each; host {submitting * 1e6:,.0f} µs to encode and submit"
    )
    return {
        "context": len(ids),
        "steps": steps,
        "tokens a second": 1 / one,
        "median tokens a second": count / median(seconds),
        "host seconds": submitting,
    }


def prefill(decoder: Decoder, ids: Any, chosen: argparse.Namespace) -> dict[str, float | int]:
    """Measure a prompt, from its ids to the id that follows it."""
    seconds = []
    for turn in range(chosen.repeats + 1):
        start = time.perf_counter()
        next(decoder.generate(ids, 1, end_of_text=()))
        if turn:  # the first one compiles
            seconds.append(time.perf_counter() - start)
    print(f"prefill of {len(ids)}: {len(ids) / min(seconds):,.0f} tokens/s, {min(seconds):.4f} s")
    return {"ids": len(ids), "tokens a second": len(ids) / min(seconds), "seconds": min(seconds)}


def device_times(decoder: Decoder, ids: Any) -> dict[str, Any]:
    """Measure a step on the device, and all dispatches of each kernel by themselves."""
    decoder.prefill(ids)
    context = decoder.context
    with context.lock, context.guard, context.guard.busy:
        timer = DeviceTimer(context, Effort(repeats=16, seconds=1.0))
        steps = list(_steps(decoder._engine.token.near))
        whole = timer.measure([steps]).median
        kernels = {}
        for key, count in Counter(map(_name, steps)).items():
            same = [step for step in steps if _name(step) == key]
            kernels[key] = {"dispatches": count, "seconds": timer.measure([same]).median}
    print(f"a step on the device, by {timer.clock}: {whole * 1e6:,.1f} µs")
    for key, found in kernels.items():
        one = found["seconds"] / found["dispatches"] * 1e6
        print(f"  {found['seconds'] * 1e6:9.1f} µs  {found['dispatches']:3} × {one:7.2f}  {key}")
    return {"clock": timer.clock, "seconds": whole, "kernels": kernels}


def _steps(commands: Commands) -> Iterator[Step]:
    for command in commands.in_order:
        (bind_group,) = command.bind_groups
        yield Step(command.pipeline, bind_group, command.workgroups)


def _name(step: Step) -> str:
    return f"{step.pipeline.label} on {step.workgroups[0] * step.workgroups[1]} workgroups"


def random_weights(config: Config, body: WeightType) -> Weights:
    """Return random weights whose layers are all the same; each is uploaded by itself."""
    rng = np.random.default_rng(1)

    def quantized(rows: int, columns: int) -> Q4Weight:
        packed = np.frombuffer(rng.bytes(rows * columns // 2), np.uint8).reshape(rows, -1)
        spread = 4.6 * np.sqrt(columns)
        scales = rng.uniform(0.5, 1.5, (rows, columns // 32)) / spread
        return Q4Weight(packed, scales.astype(np.float16))

    def matrix(rows: int, columns: int) -> LayerMatrix:
        found = quantized(rows, columns)
        if body == "q4gsw":
            return found
        if body == "float16":
            return found.dequantize().astype(np.float16)
        centre = 8 if body == "affine4" else 128
        scales = found.scales * np.float16(8 / centre)
        pairs = np.stack([scales, scales * np.float16(-centre)], axis=-1)
        if body == "affine4":
            return AffineMatrix(found.packed, pairs)
        return AffineMatrix(rng.integers(0, 256, (rows, columns), np.uint8), pairs)

    ones = np.ones(config.hidden, np.float32)
    layer = LayerWeights(
        qkv=matrix(config.qkv_columns, config.hidden),
        output=matrix(config.hidden, config.heads * config.head_dim),
        gate_up=matrix(2 * config.intermediate, config.hidden),
        down=matrix(config.hidden, config.intermediate),
        attention_gain=ones,
        unit_gain=ones,
    )
    return Weights(
        config=config,
        embedding=quantized(config.vocab, config.hidden),
        head=None,
        final_gain=ones,
        layer=lambda number: layer,
    )


if __name__ == "__main__":
    sys.exit(main())
