"""``python -m benchmarks``: its options, its progress, its exit status."""

from __future__ import annotations

import argparse
import datetime
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wgpu_q4.bench.shapes import (
    SHAPE_HELP,
    SHAPES,
    default_shape,
    matrix_shape,
    positive,
    seconds,
)
from wgpu_q4.commands.progress import Progress, progress
from wgpu_q4.errors import DeviceError

if TYPE_CHECKING:
    from tools.bench.document import Document
    from tools.bench.suite import Step
    from wgpu_q4.kernels import MatrixShape

PEER_NAMES = (
    *("torch", "torch.compile", "torch-float32", "torch-float16"),
    *("onnxruntime", "onnxruntime-int8", "onnxruntime-webgpu"),
)
LAYOUT_NAMES = ("rows", "blocks_buffer")
ACCURACY_NAMES = ("exact", "fast", "int8")
QUICK = {"ids": (2047, 16384), "rows": (1, 4, 16, 128)}
FULL = {
    "ids": (1, 16, 128, 1024, 2047, 4096, 16384, 65536),
    "rows": (1, 2, 4, 8, 12, 16, 32, 64, 128, 256, 512, 1024),
}
SWEEP = {
    "vocabs": (8192, 32768, 65536, 131072, 262144),
    "embed_dims": (512, 1024, 2048, 4096, 8192),
}
SLOW_PEERS = ("torch.compile",)
"""Left out of a quick run."""

_TELLING = 0.01
"""Seconds from which a time grows with the size of the job; shorter ones are mostly overhead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--adapter", metavar="NAME", help="part of the adapter's name")
    parser.add_argument("--implementation", metavar="MODULE", help="wgpu (default) or wgpudawn")
    parser.add_argument(
        "--shape",
        type=matrix_shape,
        metavar="SHAPE",
        help=SHAPE_HELP,
    )
    parser.add_argument("--ids", type=positive, nargs="+", metavar="N", help="ids to look up")
    parser.add_argument("--rows", type=positive, nargs="+", metavar="M", help="rows of x")
    parser.add_argument(
        "--layouts", nargs="+", choices=LAYOUT_NAMES, default=list(LAYOUT_NAMES), metavar="LAYOUT"
    )
    parser.add_argument(
        "--accuracy",
        nargs="+",
        choices=ACCURACY_NAMES,
        default=list(ACCURACY_NAMES),
        metavar="ACCURACY",
        help=f"of products: {', '.join(ACCURACY_NAMES)}; one whose kernel is another's is not "
        f"measured twice",
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEER_NAMES,
        metavar="PEER",
        help=f"of {', '.join(PEER_NAMES)}; by default all, without {', '.join(SLOW_PEERS)} "
        f"unless --full; --peers alone means none",
    )
    parser.add_argument("--sweep", action="store_true", help="also over V and K")
    parser.add_argument(
        "--full", action="store_true", help="more ids and rows, every peer, and --sweep"
    )
    parser.add_argument("--repeats", type=positive, default=32, metavar="N", help="samples a job")
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=0.5,
        help="of samples a job, at most; one is always taken",
    )
    parser.add_argument(
        "--longest",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="leave a job out if a single go would take longer, judged by a smaller one",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw them, as SVG, into this one")


def run(options: argparse.Namespace, prog: str = "python -m benchmarks") -> int:
    """Measure.

    Returns:
        The exit status: 0; 2 for wrong arguments or no adapter; 130 after an interruption.
    """
    problem = _bad_paths(options)
    if problem:
        print(f"{prog}: {problem}", file=sys.stderr)
        return 2
    from wgpu_q4.bench.ceilings import CeilingJobs
    from wgpu_q4.bench.timing import DeviceTimer, Effort
    from wgpu_q4.device import SoftwareAdapterWarning, context_for, request_device

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SoftwareAdapterWarning)  # the first line says it
            context = context_for(request_device(options.adapter, options.implementation))
    except DeviceError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    from tools.bench.document import Document, rates
    from tools.bench.suite import steps
    from tools.bench.surroundings import adapter, host, versions
    from wgpu_q4.bench.table import HEADER, line

    timer = DeviceTimer(context, Effort(options.repeats, options.seconds))
    software = adapter(context)["kind"] == "CPU"
    shape = options.shape or default_shape(software)
    selection = _selection(options, shape)
    print(f"{context.adapter_summary}, {adapter(context)['implementation']}")
    print(
        f"V = {shape.vocab}, K = {shape.embed_dim}, G = {shape.group_size}, {shape.scales} scales; "
        f"limit: the bytes that a job must move, over the bandwidth of the copy"
    )
    if timer.why:
        print(f"wall clock over many dispatches, because {timer.why}")
    print(f"\n{HEADER}")
    document: Document | None = None
    try:
        ceilings = CeilingJobs(timer, software)
        before = ceilings.measure()
        document = Document(
            measured=datetime.date.today().isoformat(),
            command=_command(options, prog),
            adapter=adapter(context),
            host=host(),
            versions=versions(),
            shape=shape,
            clock={"kind": timer.clock, "why": timer.why},
            ceilings=rates(before),
        )
        for result in (before.copy, before.read, before.arithmetic):
            document.results.append(result)
            print(line(result, document.copy_bandwidth), flush=True)
        measure(steps(timer, selection), document, options.longest)
        after = ceilings.measure()
        document.drift = after.over(before)
        document.complete = True
        said = ", ".join(f"{name} {ratio:.3f}" for name, ratio in document.drift.items())
        print(f"\nthe same after everything, over the time before: {said}")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        if document is not None and options.json:
            document.write(options.json)
            print(f"wrote {options.json}")
    if options.plot:
        from tools.bench.plots import draw

        stem = options.json.stem if options.json else _slug(document.adapter["name"])
        for path in draw(document, options.plot, stem):
            print(f"wrote {path}")
    return 0


def measure(steps: Sequence[Step], document: Document, longest: float) -> None:
    """Run the steps; results and reasons go into ``document`` and to standard output.

    Args:
        steps: the jobs.
        document: is filled.
        longest: the most seconds of one go; a step that would take longer, judged by the last step
            of its series, is left out.
    """
    from tools.bench.peers import UnavailableError
    from wgpu_q4.bench.table import line

    pace: dict[str, float] = {}  # of series whose last job took long enough to judge by
    absent: set[str] = set()
    with progress(len(steps)) as bar:
        for step in steps:
            bar.begin(step.title)
            foreseen = pace.get(step.series, 0) * step.cost
            try:
                if step.series in absent:
                    continue
                if foreseen > longest:
                    raise ValueError(f"one go would take about {foreseen:.0f} s (--longest)")
                result = step.run()
            except UnavailableError as error:
                absent.add(step.series)
                _leave_out(document, step.series, str(error), bar)
            except (ValueError, DeviceError, MemoryError) as error:
                _leave_out(document, step.title, str(error) or type(error).__name__, bar)
            else:
                if result.timing.median >= _TELLING:
                    pace[step.series] = result.timing.median / step.cost
                document.results.append(result)
                bar.say(line(result, document.copy_bandwidth))


def _leave_out(document: Document, what: str, why: str, bar: Progress) -> None:
    document.left_out.append({"what": what, "why": why})
    bar.say(f"left out: {what}: {why}")


def _selection(options: argparse.Namespace, shape: MatrixShape) -> Any:
    from tools.bench.suite import Selection

    sizes = FULL if options.full else QUICK
    peers = options.peers
    if peers is None:
        peers = [name for name in PEER_NAMES if options.full or name not in SLOW_PEERS]
    sweep = SWEEP if options.sweep or options.full else {"vocabs": (), "embed_dims": ()}
    return Selection(
        shape,
        tuple(options.ids or sizes["ids"]),
        tuple(options.rows or sizes["rows"]),
        tuple(options.layouts),
        tuple(options.accuracy),
        peers=tuple(peers),
        **sweep,
    )


def _command(options: argparse.Namespace, prog: str) -> str:
    """Return the command that repeats these measurements, without the files for the figures."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [prog]
    for name in vars(parser.parse_args([])):
        value = getattr(options, name)
        if name in ("json", "plot") or value == parser.get_default(name):
            continue
        words.append(f"--{name}")
        if name == "shape":
            sizes = (value.vocab, value.embed_dim, value.group_size)
            names = {known: name for name, known in SHAPES.items()}
            value = names.get(sizes, "x".join(map(str, sizes)))
        if value is not True:
            words += [shlex.quote(str(v)) for v in (value if isinstance(value, list) else [value])]
    return " ".join(words)


def _bad_paths(options: argparse.Namespace) -> str | None:
    """Return what is wrong with the files to write, or None; asked before the run, not after it."""
    if options.json is not None and options.json.is_dir():
        return f"{options.json} is a directory; name a file for the figures"
    if options.plot is not None:
        if options.plot.is_file():
            return f"{options.plot} is a file; name a directory for the plots"
        if find_spec("matplotlib") is None:
            return "--plot needs the package matplotlib: pip install matplotlib"
    return None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
