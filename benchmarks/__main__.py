"""Measure the ops on an adapter and print what share of its bandwidth they reach."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Bench, Result
from benchmarks.peers import torch_peers
from wgpu_q4 import Q4Weight, __version__
from wgpu_q4.device import context_for, request_device
from wgpu_q4.errors import DeviceError

SHAPES = {
    "llama-3.2-1b": (128256, 2048, 32),
    "smollm2-135m": (49152, 576, 32),
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--adapter", help="part of the adapter's name (default: the best one)")
    parser.add_argument("--implementation", help="wgpu (default) or wgpudawn")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--ids", type=int, nargs="+", default=[2047, 16384])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 512])
    parser.add_argument("--repeats", type=int, default=32, help="timed passes of each job")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args(arguments)

    try:
        context = context_for(request_device(chosen.adapter, chosen.implementation))
    except DeviceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    vocab, embed_dim, group_size = SHAPES[chosen.shape]
    header = {
        "adapter": context.adapter_summary,
        "implementation": f"{context.implementation.__name__} {context.implementation.__version__}",
        "wgpu_q4": __version__,
        "python": platform.python_version(),
        "shape": {"vocab": vocab, "embed_dim": embed_dim, "group_size": group_size},
        "command": _command(chosen),
    }
    print(f"{header['adapter']}, {header['implementation']}")
    print(f"V = {vocab}, K = {embed_dim}, G = {group_size}, float16 scales\n")
    if "timestamp-query" not in context.device.features:
        print("benchmarks: this adapter has no timestamp-query", file=sys.stderr)
        return 1

    random = np.random.default_rng(0)
    packed = random.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
    scales = random.uniform(0.5, 1.5, (vocab, embed_dim // group_size)).astype(np.float16)
    bench = Bench(context, Q4Weight(packed, scales), chosen.repeats)

    copied = bench.copy()
    bandwidth = copied.moved / copied.timing.median
    print(f"{'job':52} {'median':>10} {'quartiles':>20} {'GB/s':>7} {'of copy':>7} {'TFLOP/s':>7}")
    print(line(copied, bandwidth))
    results = []
    for job in jobs(bench, chosen.ids, chosen.rows):
        try:
            result = job()
        except (ValueError, DeviceError) as error:
            print(f"left out: {error}")
            continue
        results.append(result)
        print(line(result, bandwidth))
    for peer in torch_peers(bench.weight, chosen.ids[-1], chosen.rows, chosen.repeats):
        results.append(peer)
        print(line(peer, bandwidth))
    after = bench.copy()
    drift = after.timing.median / copied.timing.median
    print(f"\nthe same copy after everything else: {drift:.3f} of the time before")

    if chosen.json:
        figures = {
            **header,
            "copy_bytes_per_second": bandwidth,
            "copy_after_over_before": drift,
            "results": [result.as_json() for result in [copied, *results]],
        }
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _command(chosen: argparse.Namespace) -> str:
    """The command that repeats these measurements (not where their figures went)."""
    words = ["python -m benchmarks"]
    for name, value in vars(chosen).items():
        if value is not None and name != "json":
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(str, values)]
    return " ".join(words)


def jobs(bench: Bench, ids: list[int], rows: list[int]) -> Iterator[Callable[[], Result]]:
    """Every job, as calls that measure it."""
    for layout in ("rows", "blocks_buffer"):
        for count in ids:
            for output in ("float32", "float16"):
                yield lambda n=count, at=layout, of=output: bench.embedding(n, at, of)  # type: ignore[misc]
    for layout in ("rows", "blocks_buffer"):
        for count in rows:
            yield lambda n=count, at=layout: bench.linear(n, at)  # type: ignore[misc]
    calls = bench.calls(ids[0])
    yield lambda: next(calls)
    yield lambda: next(calls)


def line(result: Result, bandwidth: float) -> str:
    """One row of the table."""

    def micro(seconds: float) -> str:
        return f"{seconds * 1e6:.1f}"

    timing = result.timing
    rate = result.moved / timing.median
    columns: list[Any] = [
        f"{result.job:52}",
        f"{micro(timing.median) + ' µs':>10}",
        f"{micro(timing.low) + ' to ' + micro(timing.high):>20}",
        f"{rate / 1e9:7.0f}" if result.moved else " " * 7,
        f"{rate / bandwidth:7.0%}" if result.moved else " " * 7,
        f"{result.flops / timing.median / 1e12:7.2f}" if result.flops else " " * 7,
        "" if result.where == "gpu" else "wall clock",
    ]
    return " ".join(columns).rstrip()


if __name__ == "__main__":
    sys.exit(main())
