"""The WGSL for ExecuTorch's WebGPU backend beside that backend's own, in one run.

    python -m benchmarks.webgpu_drop_in ../executorch/backends/webgpu

Each folder holds the two shaders under the backend's names, at any depth: a checkout of ExecuTorch
will do.  All run as that backend runs them, through its bindings, uniform and grid, with the checks
of the WebGPU implementation.  Results are compared with float64 before anything is timed.  The
folders take turns, several times, so that a clock that moves moves all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from tools.codegen import WEBGPU_FOLDER
from tools.webgpu_backend import WebGPUHost
from wgpu_q4 import Q4Weight, reference
from wgpu_q4.bench.accounting import embedding_bytes, linear_bytes
from wgpu_q4.bench.ceilings import CeilingJobs
from wgpu_q4.bench.timing import DeviceTimer, Effort, Timing, Work
from wgpu_q4.device import Context, context_for, request_device
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels import MatrixShape

_COLD = 256 << 20
"""Inputs rotate over about so many bytes, several times a large cache."""

_CHECKED_ROWS = 2048


@dataclass
class Job:
    """One dispatch of each folder.

    Attributes:
        name: what it computes.
        moved: the bytes that it cannot avoid.
        ways: folder → what is timed, on inputs that rotate.
        timings: folder → one of each round.
    """

    name: str
    moved: int
    ways: dict[str, list[Work]]
    timings: dict[str, list[Timing]] = field(default_factory=dict)

    def measure(self, timer: DeviceTimer) -> None:
        """Take one round."""
        for folder, work in self.ways.items():
            self.timings.setdefault(folder, []).append(timer.measure(work))

    def seconds(self, folder: str) -> float:
        """The median of the rounds."""
        return median(timing.median for timing in self.timings[folder])

    def report(self, bandwidth: float) -> str:
        """One line: each folder's time, and how many times faster the first is."""
        first, *others = self.ways
        share = self.moved / bandwidth / self.seconds(first)
        parts = [f"{self.name:<34}", *(f"{1e6 * self.seconds(name):>10.1f}" for name in self.ways)]
        parts += [f"{self.seconds(name) / self.seconds(first):>8.2f}×" for name in others]
        return " ".join([*parts, f"  {share:.0%} of copy bandwidth"])


def copies(nbytes: int) -> int:
    """How many copies of an input of so many bytes are rotated."""
    return max(2, min(32, _COLD // nbytes))


def embedding_job(hosts: dict[str, WebGPUHost], weight: Q4Weight, count: int) -> Job:
    """The rows of ``count`` random ids."""
    (vocab, embed_dim), rng = weight.shape, np.random.default_rng(count)
    any_host = next(iter(hosts.values()))
    packed, scales = any_host.buffer(weight.packed), any_host.buffer(weight.scales)
    outs = [any_host.buffer(np.full(count * embed_dim, np.nan, np.float32)) for _ in range(2)]
    ids = [rng.integers(0, vocab, count, np.int32) for _ in range(8)]
    id_buffers = [any_host.buffer(one) for one in ids]

    def prepare(host: WebGPUHost, turn: int) -> Step:
        return host.embedding(
            outs[turn % 2],
            id_buffers[turn],
            packed,
            scales,
            count=count,
            embed_dim=embed_dim,
            group_size=weight.group_size,
            is_linear=True,
        )

    def check(host: WebGPUHost) -> None:
        found = host.run(prepare(host, 0), outs[0]).reshape(count, embed_dim)[:_CHECKED_ROWS]
        expected = reference.embedding(ids[0][:_CHECKED_ROWS], weight)
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))

    shape = MatrixShape(vocab, embed_dim, weight.group_size, "float32")
    moved = embedding_bytes(shape, count, "rows", "float32")
    return job(f"embedding {count}", moved, hosts, check, prepare, len(ids))


def linear_job(hosts: dict[str, WebGPUHost], weight: Q4Weight) -> Job:
    """One row of x with the matrix."""
    (vocab, embed_dim), rng = weight.shape, np.random.default_rng(1)
    any_host = next(iter(hosts.values()))
    x = rng.standard_normal(embed_dim).astype(np.float32)
    x_buffer, out = any_host.buffer(x), any_host.buffer(np.full(vocab, np.nan, np.float32))
    turned = np.ascontiguousarray(weight.scales.T)
    weights = [
        (any_host.buffer(weight.packed), any_host.buffer(turned))
        for _ in range(copies(weight.packed.nbytes))
    ]

    def prepare(host: WebGPUHost, turn: int) -> Step:
        return host.linear(
            out,
            x_buffer,
            *weights[turn],
            None,
            vocab=vocab,
            embed_dim=embed_dim,
            group_size=weight.group_size,
            padded_vocab=vocab,
        )

    def check(host: WebGPUHost) -> None:
        some = np.unique(rng.integers(0, vocab, _CHECKED_ROWS))
        part = Q4Weight(weight.packed[some], weight.scales[some])
        found = host.run(prepare(host, 0), out)
        error = np.abs(found[some] - reference.linear(x, part))
        assert (error <= reference.linear_bound(x, part)).all(), "an output is wrong"
        assert np.isfinite(found).all(), "an output was not written"

    shape = MatrixShape(vocab, embed_dim, weight.group_size, "float32")
    name = f"linear {vocab} × {embed_dim}"
    return job(name, linear_bytes(shape, 1, "rows"), hosts, check, prepare, len(weights))


def job(
    name: str,
    moved: int,
    hosts: dict[str, WebGPUHost],
    check: Callable[[WebGPUHost], None],
    prepare: Callable[[WebGPUHost, int], Step],
    turns: int,
) -> Job:
    """Check each folder's result, and make its dispatches."""
    ways: dict[str, list[Work]] = {}
    for folder, host in hosts.items():
        check(host)
        ways[folder] = [[prepare(host, turn)] for turn in range(turns)]
    return Job(name, moved, ways)


def random_weight(vocab: int, embed_dim: int, group_size: int) -> Q4Weight:
    """Any nibbles; float32 scales."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
    scales = rng.uniform(0.5, 1.5, (vocab, embed_dim // group_size)).astype(np.float32)
    return Q4Weight(packed, scales)


def makers(options: argparse.Namespace) -> Iterator[Callable[[dict[str, WebGPUHost]], Job]]:
    """What makes each job; a job's buffers are released with it."""
    tied = random_weight(options.vocab, options.embed_dim, options.group_size)
    for count in options.ids:
        yield partial(embedding_job, weight=tied, count=count)
    yield partial(linear_job, weight=tied)
    for named in options.linear:
        vocab, embed_dim = map(int, named.split("x"))
        yield partial(linear_job, weight=random_weight(vocab, embed_dim, options.group_size))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webgpu_drop_in")
    parser.add_argument("folders", type=Path, nargs="+", help="of other shaders, each a column")
    parser.add_argument("--implementation", choices=["wgpu", "wgpudawn"], default="wgpu")
    parser.add_argument("--adapter", help="part of its name")
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--embed-dim", type=int, default=2048)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--ids", type=int, nargs="*", default=[16384, 2047])
    parser.add_argument(
        "--linear",
        nargs="*",
        default=["2048x2048", "512x2048", "8192x2048", "2048x8192"],
        metavar="VxK",
        help="further matrices of the linear op",
    )
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse(arguments)
    context: Context = context_for(request_device(options.adapter, options.implementation))
    timer = DeviceTimer(context, Effort(repeats=32, seconds=0.2))
    folders = (WEBGPU_FOLDER, *options.folders)
    hosts = {str(folder): WebGPUHost(context.device, folder) for folder in folders}
    before = CeilingJobs(timer, context.is_software).measure()
    bandwidth = before.copy_bandwidth
    print(f"{options.implementation}: {context.adapter_summary}; clock: {timer.clock}")
    print(f"copy bandwidth {bandwidth / 1e12:.2f} TB/s; groups of {options.group_size}")
    print("µs, columns: " + "; ".join(["webgpu_wgsl", *map(str, options.folders)]))
    for make in makers(options):
        found = make(hosts)
        for _ in range(options.rounds):
            found.measure(timer)
        print(found.report(bandwidth), flush=True)
    after = CeilingJobs(timer, context.is_software).measure()
    moved = ", ".join(f"{name} {ratio:.2f}" for name, ratio in after.over(before).items())
    print(f"time of the ceilings after and before: {moved}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
